"""Manifests and slices: as many endpoints as asked, as the real controllers would make them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.fleet import INDEX_LABEL, node_address, node_name
from framework.spec import EndpointMode, ServiceSpec
from framework.workload import (
    NAMESPACE,
    daemonset_manifest,
    pod_calls,
    pod_status_calls,
    service_manifests,
    slice_calls,
)


def a_service(endpoints: int, mode: EndpointMode = "endpointslices", **changes: Any) -> ServiceSpec:
    return ServiceSpec(name="web", endpoints=endpoints, mode=mode, **changes)


def slices(endpoints: int, **changes: Any) -> list[dict[str, Any]]:
    bodies = [call.body for call in slice_calls(a_service(endpoints, **changes))]
    return [msgspec.json.decode(body) for body in bodies if body is not None]


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
