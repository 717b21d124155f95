"""Manifests and slices: as many endpoints as asked, as the real controllers would make them."""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.cluster import Call
from framework.fleet import INDEX_LABEL, node_address, node_name, zone
from framework.spec import EndpointMode, ManyServicesSpec, ServiceSpec
from framework.workload import (
    NAMESPACE,
    answering,
    daemonset_manifest,
    many_services_calls,
    pod_calls,
    pod_status_calls,
    programmed,
    replacement_calls,
    sentinel_calls,
    service_manifests,
    slice_calls,
)


def a_service(endpoints: int, mode: EndpointMode = "endpointslices", **changes: Any) -> ServiceSpec:
    return ServiceSpec(name="web", endpoints=endpoints, mode=mode, **changes)


def slices(endpoints: int, **changes: Any) -> list[dict[str, Any]]:
    bodies = [call.body for call in slice_calls(a_service(endpoints, **changes))]
    return [msgspec.json.decode(body) for body in bodies if body is not None]


def decode(call: Call) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(call.body or b"")
    return found


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5000))
def test_slices_hold_every_endpoint_once_a_hundred_each(endpoints: int) -> None:
    made = slices(endpoints)
    sizes = [len(piece["endpoints"]) for piece in made]
    assert sizes[:-1] == [100] * (len(sizes) - 1)
    assert 0 < sizes[-1] <= 100
    entries = [entry for piece in made for entry in piece["endpoints"]]
    assert [entry["addresses"] for entry in entries] == [[node_address(index)] for index in range(endpoints)]
    assert [entry["nodeName"] for entry in entries] == [node_name(index) for index in range(endpoints)]
    assert len({piece["metadata"]["name"] for piece in made}) == len(made)


def test_slices_are_the_services_and_ready() -> None:
    (piece,) = slices(3, ports=(80, 8080))
    assert piece["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    assert piece["addressType"] == "IPv4"
    assert [(port["port"], port["protocol"]) for port in piece["ports"]] == [(80, "TCP"), (8080, "TCP")]
    assert {entry["conditions"]["ready"] for entry in piece["endpoints"]} == {True}
    (call,) = slice_calls(a_service(3))
    assert (call.method, call.path) == (
        "POST",
        f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices",
    )


def test_slices_belong_to_nobody_who_would_delete_them() -> None:
    managers = {
        piece["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] for piece in slices(250)
    }
    assert managers == {"kilonode.dev"}


@pytest.mark.parametrize(
    ("mode", "selector"),
    [
        ("native", {"app": "web-native"}),
        ("adopted", {"app": "web-adopted"}),
        ("endpointslices", None),
    ],
)
def test_only_a_service_with_pods_selects_them(mode: EndpointMode, selector: dict[str, str] | None) -> None:
    assert service_manifests(a_service(10, mode))[0]["spec"].get("selector") == selector


@pytest.mark.parametrize("mode", ["native", "endpointslices"])
def test_every_port_of_a_service_is_found_in_its_slices(mode: EndpointMode) -> None:
    spec = a_service(10, mode, ports=(80, 443))
    ports = service_manifests(spec)[0]["spec"]["ports"]
    assert [(port["port"], port["targetPort"], port["protocol"]) for port in ports] == [
        (80, 80, "TCP"),
        (443, 443, "TCP"),
    ]
    (piece,) = slices(10, ports=(80, 443))
    assert [port["name"] for port in piece["ports"]] == [port["name"] for port in ports]
    assert len({port["name"] for port in ports}) == 2


def test_services_that_share_endpoints_have_slices_of_their_own() -> None:
    made = slices(150, services=3)
    owners = Counter(piece["metadata"]["labels"]["kubernetes.io/service-name"] for piece in made)
    assert owners == {"web": 2, "web-2": 2, "web-3": 2}
    assert len({piece["metadata"]["name"] for piece in made}) == 6
    manifests = service_manifests(a_service(150, services=3))
    assert [manifest["metadata"]["name"] for manifest in manifests] == list(owners)


def test_what_is_withdrawn_together_has_one_label() -> None:
    spec = a_service(150, services=3, headless=True)
    made = [*service_manifests(spec), *(decode(call) for call in (*slice_calls(spec), *sentinel_calls(spec)))]
    assert {each["metadata"]["labels"]["kilonode.dev/workload"] for each in made} == {"web"}


def test_a_dual_stack_service_has_distinct_addresses_of_both_families() -> None:
    (manifest,) = service_manifests(a_service(250, dual_stack=True))
    assert manifest["spec"]["ipFamilyPolicy"] == "RequireDualStack"
    made = slices(250, dual_stack=True)
    assert Counter(piece["addressType"] for piece in made) == {"IPv4": 3, "IPv6": 3}
    assert len({piece["metadata"]["name"] for piece in made}) == 6
    for family in ("IPv4", "IPv6"):
        addresses = [
            ipaddress.ip_address(entry["addresses"][0])
            for piece in made
            if piece["addressType"] == family
            for entry in piece["endpoints"]
        ]
        assert len(set(addresses)) == 250
        assert {f"IPv{address.version}" for address in addresses} == {family}


def test_protocol_and_affinity_are_the_services() -> None:
    (manifest,) = service_manifests(a_service(3, protocol="UDP", session_affinity="ClientIP"))
    assert manifest["spec"]["sessionAffinity"] == "ClientIP"
    (piece,) = slices(3, protocol="UDP")
    ports = [*manifest["spec"]["ports"], *piece["ports"]]
    assert {port["protocol"] for port in ports} == {"UDP"}


def test_hints_are_those_of_the_controller() -> None:
    (manifest,) = service_manifests(a_service(20, traffic_distribution="PreferSameZone"))
    assert manifest["spec"]["trafficDistribution"] == "PreferSameZone"
    (piece,) = slices(20, traffic_distribution="PreferSameZone")
    assert [entry["hints"] for entry in piece["endpoints"]] == [
        {"forZones": [{"name": zone(index)}]} for index in range(20)
    ]
    (plain,) = slices(20)
    assert not any("hints" in entry for entry in plain["endpoints"])


def test_kube_proxy_leaves_a_headless_service_and_its_slices_out_but_not_the_sentinel() -> None:
    spec = a_service(20, headless=True)
    (manifest,) = service_manifests(spec)
    assert manifest["spec"]["clusterIP"] == "None"
    (piece,) = slices(20, headless=True)
    assert piece["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    sentinel_slice, sentinel = map(decode, sentinel_calls(spec))
    assert sentinel["kind"] == "Service"
    assert "clusterIP" not in sentinel["spec"]
    labels = sentinel_slice["metadata"]["labels"]
    assert labels["kubernetes.io/service-name"] == sentinel["metadata"]["name"] != "web"
    assert "service.kubernetes.io/headless" not in labels


def test_many_services_have_endpoints_of_their_own_before_they_are_there() -> None:
    spec = ManyServicesSpec(name="small", count=30, endpoints_each=2)
    made = [decode(call) for call in many_services_calls(spec)]
    assert [each["kind"] for each in made] == ["EndpointSlice", "Service"] * 30
    pieces, services = made[::2], made[1::2]
    assert [service["metadata"]["name"] for service in services] == list(spec.names)
    owners = [piece["metadata"]["labels"]["kubernetes.io/service-name"] for piece in pieces]
    assert owners == list(spec.names)
    addresses = [
        address for piece in pieces for entry in piece["endpoints"] for address in entry["addresses"]
    ]
    assert addresses == [node_address(index) for index in range(60)]


def test_a_replaced_endpoint_moves_in_every_family_and_service() -> None:
    spec = a_service(250, dual_stack=True, services=2)
    calls = list(replacement_calls(spec, {105}, [105]))
    assert {call.method for call in calls} == {"PUT"}
    made = {call.path.rpartition("/")[2]: decode(call) for call in calls}
    assert set(made) == {"web-000100", "web-000100-v6", "web-2-000100", "web-2-000100-v6"}
    before = {piece["metadata"]["name"]: piece for piece in slices(250, dual_stack=True, services=2)}
    all_before = {entry["addresses"][0] for piece in before.values() for entry in piece["endpoints"]}
    for name, piece in made.items():
        pairs = zip(piece["endpoints"], before[name]["endpoints"], strict=True)
        moved = [new["addresses"][0] for new, old in pairs if new != old]
        assert len(moved) == 1
        assert all_before.isdisjoint(moved)


class TestProgrammed:
    """What a node makes of a workload: the log counts what kube-proxy knows, the ruleset what is left."""

    @pytest.mark.parametrize(
        ("changes", "logged", "endpoints", "service_ports"),
        [
            ({}, 1000, 1000, 1),
            ({"ports": (80, 443)}, 2000, 2000, 2),
            ({"protocol": "UDP"}, 1000, 1000, 1),
            ({"session_affinity": "ClientIP"}, 1000, 1000, 1),
            ({"dual_stack": True}, 1000, 2000, 2),
            ({"services": 3}, 3000, 3000, 3),
            ({"services": 3, "ports": (80, 443), "dual_stack": True}, 6000, 12_000, 12),
            ({"internal_traffic_policy": "Local"}, 1000, 0, 1),
            ({"internal_traffic_policy": "Local", "dual_stack": True}, 1000, 0, 2),
            ({"traffic_distribution": "PreferSameZone"}, 1000, 63, 1),
            ({"traffic_distribution": "PreferClose", "ports": (80, 443)}, 2000, 126, 2),
            ({"traffic_distribution": "PreferSameZone", "internal_traffic_policy": "Local"}, 1000, 0, 1),
            ({"headless": True}, 2, 2, 1),
            ({"headless": True, "services": 3}, 2, 2, 1),
        ],
    )
    def test_of_a_thousand_endpoints(
        self, changes: dict[str, Any], logged: int, endpoints: int, service_ports: int
    ) -> None:
        found = programmed(a_service(1000, **changes))
        assert (found.endpoints_logged, found.endpoints, found.service_ports) == (
            logged,
            endpoints,
            service_ports,
        )
        assert found.families == (("IPv4", "IPv6") if "dual_stack" in changes else ("IPv4",))

    @settings(deadline=None, max_examples=30)
    @given(st.integers(1, 3000))
    def test_every_zone_together_has_each_endpoint_once(self, endpoints: int) -> None:
        spec = a_service(endpoints, traffic_distribution="PreferSameZone")
        zones = {zone(index) for index in range(endpoints)}
        assert sum(programmed(spec, node_zone=name).endpoints for name in zones) == endpoints

    def test_a_zone_without_endpoints_uses_all(self) -> None:
        spec = a_service(3, traffic_distribution="PreferSameZone")
        assert programmed(spec, node_zone=zone(7)).endpoints == 3

    @pytest.mark.parametrize("changes", [{}, {"dual_stack": True}, {"headless": True}, {"services": 3}])
    def test_of_a_withdrawn_one_nothing_may_be_left(self, changes: dict[str, Any]) -> None:
        spec = a_service(1000, **changes)
        found = programmed(spec, applied=False)
        assert (found.endpoints_logged, found.endpoints, found.service_ports) == (0, 0, 0)
        assert found.families == programmed(spec).families

    @pytest.mark.parametrize(
        ("changes", "met"),
        [
            ({}, 1000),
            ({"ports": (80, 443), "services": 3, "dual_stack": True}, 1000),
            ({"session_affinity": "ClientIP"}, 1),
            ({"session_affinity": "ClientIP", "internal_traffic_policy": "Local"}, 0),
            ({"traffic_distribution": "PreferSameZone"}, 63),
            ({"internal_traffic_policy": "Local"}, 0),
            ({"headless": True}, 0),
        ],
    )
    def test_what_a_client_meets(self, changes: dict[str, Any], met: int) -> None:
        assert answering(a_service(1000, **changes)) == met
        assert answering(a_service(1000, **changes), applied=False) == 0

    def test_of_many_services_the_first_is_asked(self) -> None:
        assert answering(ManyServicesSpec(name="small", count=500, endpoints_each=2)) == 2

    def test_of_many_services(self) -> None:
        spec = ManyServicesSpec(name="small", count=500, endpoints_each=2, ports=(80, 443))
        found = programmed(spec)
        assert (found.endpoints_logged, found.endpoints, found.service_ports) == (2000, 2000, 1000)


class TestDaemonSet:
    @settings(deadline=None)
    @given(st.integers(1, 100_000))
    def test_runs_on_exactly_the_first_fakes(self, endpoints: int) -> None:
        template = daemonset_manifest(a_service(endpoints, "native"))["spec"]["template"]
        node_affinity = template["spec"]["affinity"]["nodeAffinity"]
        (term,) = node_affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert term["matchExpressions"] == [
            {"key": "kwok.x-k8s.io/node", "operator": "In", "values": ["fake"]},
            {"key": INDEX_LABEL, "operator": "Lt", "values": [str(endpoints)]},
        ]

    def test_its_pods_have_their_nodes_address_and_the_services_label(self) -> None:
        spec = daemonset_manifest(a_service(5, "native", ports=(80, 8080)))["spec"]
        assert spec["template"]["spec"]["hostNetwork"] is True
        labels = spec["template"]["metadata"]["labels"]
        assert labels == spec["selector"]["matchLabels"]
        assert labels == service_manifests(a_service(5, "native"))[0]["spec"]["selector"]
        (container,) = spec["template"]["spec"]["containers"]
        assert [port["containerPort"] for port in container["ports"]] == [80, 8080]

    def test_adopted_pods_are_what_the_controller_would_create(self) -> None:
        spec = a_service(5, "adopted")
        calls = list(pod_calls(spec, daemonset_uid="u-1", indexes=[3, 4]))
        assert {(call.method, call.path) for call in calls} == {("POST", "/api/v1/namespaces/default/pods")}
        pods = [msgspec.json.decode(call.body or b"") for call in calls]
        assert [pod["spec"]["nodeName"] for pod in pods] == [node_name(3), node_name(4)]
        assert len({pod["metadata"]["name"] for pod in pods}) == 2
        template = daemonset_manifest(spec)["spec"]["template"]
        for pod in pods:
            (owner,) = pod["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["name"], owner["uid"]) == ("DaemonSet", "web-adopted", "u-1")
            assert owner["controller"] is owner["blockOwnerDeletion"] is True
            assert pod["metadata"]["labels"].items() >= template["metadata"]["labels"].items()
            assert pod["spec"]["containers"] == template["spec"]["containers"]
            assert pod["spec"]["hostNetwork"] is True
            affinity = pod["spec"]["affinity"]["nodeAffinity"]
            (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
            assert [field["values"] for field in term["matchFields"]] == [[pod["spec"]["nodeName"]]]

    def test_adopted_pods_are_made_ready_where_their_node_is(self) -> None:
        (call,) = pod_status_calls(a_service(5, "adopted"), daemonset_uid="u-1", indexes=[3])
        (created,) = pod_calls(a_service(5, "adopted"), daemonset_uid="u-1", indexes=[3])
        pod, before = (msgspec.json.decode(each.body or b"") for each in (call, created))
        assert (call.method, call.path) == ("PUT", f"{created.path}/{pod['metadata']['name']}/status")
        assert pod["metadata"] == before["metadata"]
        assert pod["status"]["podIP"] == pod["status"]["hostIP"] == node_address(3)
        assert {(c["type"], c["status"]) for c in pod["status"]["conditions"]} >= {("Ready", "True")}

    def test_a_changed_size_does_not_replace_pods(self) -> None:
        assert daemonset_manifest(a_service(5, "native"))["spec"]["updateStrategy"] == {"type": "OnDelete"}
