"""kwok keeps fakes alive with production's times, and a kwok that stops is seen when it was predicted."""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime

import msgspec
import pytest

from framework.cluster import Bulk, EmbeddedCluster, run_bulk
from framework.fleet import FAKE_SELECTOR, Fleet, judge_renewals, watch_renewals
from framework.fleet.fleet import NODES_PATH
from framework.run_objects import LEASES_PATH
from framework.wait import wait_until

NODES = 200
CLOCK_S = 1.0
"""Condition times are written in whole seconds."""
SEEN_S = 3.0
"""What the controller may take to write the conditions of all fakes."""


class Condition(msgspec.Struct, rename="camel"):
    type: str
    status: str
    last_transition_time: datetime | None = None


class Status(msgspec.Struct):
    conditions: list[Condition] = []


class Meta(msgspec.Struct):
    name: str


class Node(msgspec.Struct):
    metadata: Meta
    status: Status


class LeaseSpec(msgspec.Struct, rename="camel"):
    renew_time: datetime | None = None


class Lease(msgspec.Struct):
    metadata: Meta
    spec: LeaseSpec


@pytest.fixture
def fleet(fakes: Fleet) -> Fleet:
    fakes.grow_to(NODES)
    return fakes


def renew_times_s(cluster: EmbeddedCluster) -> dict[str, float]:
    async def read(bulk: Bulk) -> dict[str, float]:
        pages = bulk.pages(LEASES_PATH, Lease)
        leases = [lease async for page in pages for lease in page]
        return {
            lease.metadata.name: lease.spec.renew_time.timestamp()
            for lease in leases
            if lease.spec.renew_time is not None and lease.metadata.name.startswith("fake-")
        }

    found: dict[str, float] = run_bulk(read, cluster.endpoint)
    return found


def unready_since_s(cluster: EmbeddedCluster) -> dict[str, float]:
    async def read(bulk: Bulk) -> dict[str, float]:
        pages = bulk.pages(NODES_PATH, Node, selector=FAKE_SELECTOR)
        return {
            node.metadata.name: condition.last_transition_time.astimezone(UTC).timestamp()
            for node in [node async for page in pages for node in page]
            for condition in node.status.conditions
            if condition.type == "Ready" and condition.status != "True" and condition.last_transition_time
        }

    found: dict[str, float] = run_bulk(read, cluster.endpoint)
    return found


def test_no_fake_turns_not_ready_in_one_and_a_half_grace_periods(
    fleet: Fleet, cluster: EmbeddedCluster
) -> None:
    budget = cluster.budget
    assert budget.is_production
    begin_s = time.time()
    renewals = watch_renewals(cluster.endpoint, 1.5 * budget.grace_s)
    end_s = time.time()
    report = judge_renewals(
        renewals, msgspec.structs.replace(budget, nodes=fleet.size), begin_s=begin_s, end_s=end_s
    )
    assert report.unrenewed == 0
    assert report.per_s >= 0.95 * fleet.size / (1.04 * budget.interval_s)
    assert report.late_s_p99 < budget.interval_s / 2
    summary = fleet.summary()
    assert summary.ready == summary.nodes == fleet.size
    assert cluster.unready_nodes() == 0


def test_a_stopped_kwok_turns_fakes_not_ready_at_the_predicted_time(
    fleet: Fleet, cluster: EmbeddedCluster
) -> None:
    cluster.signal("kwok", signal.SIGSTOP)
    try:
        renewed_s = renew_times_s(cluster)
        assert len(renewed_s) == fleet.size
        earliest_s, latest_s = cluster.budget.not_ready_after_s
        time.sleep(min(renewed_s.values()) + earliest_s - time.time() - SEEN_S)
        assert unready_since_s(cluster) == {}
        wait_until(
            lambda: len(unready_since_s(cluster)) == fleet.size or None,
            what="every fake NotReady",
            timeout_s=latest_s,
            interval_s=1.0,
            describe=lambda: f"{len(unready_since_s(cluster))} are",
        )
        since_s = unready_since_s(cluster)
    finally:
        cluster.signal("kwok", signal.SIGCONT)
    delays_s = [since_s[name] - at_s for name, at_s in renewed_s.items()]
    assert min(delays_s) >= earliest_s - CLOCK_S
    assert max(delays_s) <= latest_s + SEEN_S
    fleet.verify()
