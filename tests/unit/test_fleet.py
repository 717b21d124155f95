"""Fake nodes: Ready, known to kwok, and each with an address of its own."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.fleet import FAKE_RANGE, FAKE_SELECTOR, INDEX_LABEL, node_address, node_name
from framework.fleet.nodes import lease_body, node_body
from framework.network import CLUSTER_RANGE
from framework.run_objects import LEASE_NAMESPACE
from framework.spec import NODES_MAX

INDEXES = st.integers(0, NODES_MAX - 1)
NOW = datetime(2026, 2, 3, 5, 5, 6, 70_000, tzinfo=timezone(timedelta(hours=1)))
SERVICE_RANGE = ipaddress.ip_network("10.96.0.0/12")


def a_node(index: int) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(node_body(index, fleet=100_000, version="1.37.2", now=NOW))
    return decoded


@settings(deadline=None)
@given(INDEXES, INDEXES)
def test_names_and_addresses_are_distinct_and_in_order(one: int, other: int) -> None:
    assert (node_name(one) == node_name(other)) == (one == other)
    assert (node_name(one) < node_name(other)) == (one < other)
    addresses = [ipaddress.ip_address(node_address(index)) for index in (one, other)]
    assert (addresses[0] == addresses[1]) == (one == other)


@settings(deadline=None)
@given(INDEXES)
def test_addresses_are_inside_their_range_and_apart_from_all_others(index: int) -> None:
    address = ipaddress.ip_address(node_address(index))
    assert address in FAKE_RANGE
    assert address not in {FAKE_RANGE.network_address, FAKE_RANGE.broadcast_address}
    assert address not in SERVICE_RANGE
    assert address not in CLUSTER_RANGE


def test_a_fleet_of_a_hundred_thousand_has_as_many_addresses() -> None:
    assert len({node_address(index) for index in range(100_000)}) == 100_000


@settings(deadline=None)
@given(INDEXES)
def test_a_node_is_ready_and_carries_what_finds_it(index: int) -> None:
    node = a_node(index)
    key, value = FAKE_SELECTOR.split("=")
    labels = node["metadata"]["labels"]
    assert labels[key] == value
    assert labels[INDEX_LABEL] == str(index)
    assert node["metadata"]["name"] == labels["kubernetes.io/hostname"] == node_name(index)
    conditions = {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}
    assert conditions.pop("Ready") == "True"
    assert set(conditions.values()) == {"False"}
    internal = [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
    assert internal == [node_address(index)]


def test_a_node_is_schedulable_and_says_which_kubelet_it_plays() -> None:
    node = a_node(7)
    assert node["spec"] == {}
    assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.37.2"
    assert "node.kubernetes.io/exclude-disruption" not in node["metadata"]["labels"]


def test_times_are_utc() -> None:
    stamps = {condition["lastHeartbeatTime"] for condition in a_node(1)["status"]["conditions"]}
    assert stamps == {"2026-02-03T04:05:06Z"}
    lease = msgspec.json.decode(lease_body(1, now=NOW.astimezone(UTC)))
    assert lease["spec"]["renewTime"] == "2026-02-03T04:05:06.070000Z"


@settings(deadline=None)
@given(INDEXES)
def test_a_lease_is_free_for_kwok_to_take(index: int) -> None:
    lease = msgspec.json.decode(lease_body(index, now=NOW))
    assert lease["metadata"] == {"name": node_name(index), "namespace": LEASE_NAMESPACE}
    assert lease["spec"]["leaseDurationSeconds"] == 40
    assert "holderIdentity" not in lease["spec"]
