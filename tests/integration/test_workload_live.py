"""A Service made by real controllers and one made of slices are the same to a real node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, get_args

import kubernetes
import pytest

from framework.cluster import ApiEndpoint, EmbeddedCluster
from framework.fleet import Fleet, node_address
from framework.observe import read_ruleset
from framework.outcome import Ruleset
from framework.realnode import HostNode
from framework.spec import EndpointMode, RealNodeSpec, ServiceSpec
from framework.units import MIB
from framework.wait import wait_until
from framework.workload import NAMESPACE, DaemonSetService, Endpoints

ENDPOINTS = 120
PROGRAM_TIMEOUT_S = 60.0
CONTROLLER_ACTS_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def fleet(fakes: Fleet) -> Fleet:
    fakes.grow_to(ENDPOINTS + 10)
    return fakes


@pytest.fixture(scope="module")
def node(
    fleet: Fleet, serving: Callable[[RealNodeSpec, str], AbstractContextManager[HostNode]]
) -> Iterator[HostNode]:
    with serving(RealNodeSpec(memory_bytes=900 * MIB, kube_proxy="1.37.2"), "real-served") as made:
        yield made


@pytest.fixture(params=get_args(EndpointMode))
def service(
    request: pytest.FixtureRequest, fleet: Fleet, cluster: EmbeddedCluster
) -> Iterator[DaemonSetService]:
    mode: EndpointMode = request.param
    made = a_service(cluster, f"web-{mode}", ENDPOINTS, mode)
    yield made
    made.delete()
    made.close()


def a_service(cluster: EmbeddedCluster, name: str, endpoints: int, mode: EndpointMode) -> DaemonSetService:
    return DaemonSetService(
        ServiceSpec(name=name, endpoints=endpoints, mode=mode),
        cluster.endpoint,
        loading_pods=cluster.loading_pods,
    )


def slices(endpoint: ApiEndpoint, service: str) -> list[Any]:
    with endpoint.client() as client:
        found = kubernetes.client.DiscoveryV1Api(client).list_namespaced_endpoint_slice(
            NAMESPACE, label_selector=f"kubernetes.io/service-name={service}"
        )
    return list(found.items)


def addresses(endpoint: ApiEndpoint, service: str) -> list[str]:
    pieces = slices(endpoint, service)
    return [a for piece in pieces for entry in piece.endpoints or () for a in entry.addresses]


def programmed(node: HostNode, service: DaemonSetService, endpoints: int) -> Ruleset:
    last: list[Ruleset] = []

    def complete() -> Ruleset | None:
        last[:] = [read_ruleset(netns=node.netns, services={service.full_name})]
        return last[0] if last[0].endpoints == endpoints else None

    return wait_until(
        complete,
        what=f"{endpoints} endpoints on {node.name}",
        timeout_s=PROGRAM_TIMEOUT_S,
        interval_s=0.25,
        describe=lambda: f"{last}; {node.daemons['kube-proxy'].log_tail(1000)}",
    )


def test_a_real_node_is_programmed(
    node: HostNode, service: DaemonSetService, cluster: EmbeddedCluster
) -> None:
    heard: list[int] = []
    service.prepare(heard.append)
    if service.spec.mode != "endpointslices":
        assert heard[-1] == ENDPOINTS
    assert service.endpoints() == Endpoints(slices=0, ready=0, distinct_addresses=0)
    applied_s = service.apply()
    found = service.wait_for_endpoints()
    complete_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert applied_s - 1 <= service.last_changed_s() <= complete_s
    pieces = slices(cluster.endpoint, service.spec.name)
    writes = [write.time for piece in pieces for write in piece.metadata.managed_fields]
    age_s = (datetime.now(UTC) - max(writes)).total_seconds()
    assert service.last_changed_s() >= time.clock_gettime(time.CLOCK_BOOTTIME) - age_s - 0.1
    assert found == Endpoints(slices=2, ready=ENDPOINTS, distinct_addresses=ENDPOINTS)
    held = addresses(cluster.endpoint, service.spec.name)
    assert sorted(held) == sorted(node_address(index) for index in range(ENDPOINTS))
    assert programmed(node, service, ENDPOINTS).endpoints == ENDPOINTS
    service.withdraw()
    assert programmed(node, service, 0).endpoints == 0
    assert addresses(cluster.endpoint, service.spec.name) == []
    assert service.last_changed_s() > complete_s


def pods(cluster: EmbeddedCluster, service: DaemonSetService) -> dict[str, str]:
    """The uids of a DaemonSet's pods that aren't on their way out, by node."""
    with cluster.endpoint.client() as client:
        items = (
            kubernetes.client.CoreV1Api(client)
            .list_namespaced_pod(NAMESPACE, label_selector=f"app={service.spec.workload}")
            .items
        )
    return {pod.spec.node_name: pod.metadata.uid for pod in items if not pod.metadata.deletion_timestamp}


def test_the_real_controller_counts_adopted_pods_and_neither_creates_nor_deletes_any(
    fleet: Fleet, cluster: EmbeddedCluster
) -> None:
    service = a_service(cluster, "web-adopted-apart", ENDPOINTS, "adopted")
    try:
        service.prepare()
        before = pods(cluster, service)
        assert len(before) == ENDPOINTS
        with cluster.endpoint.client() as client:
            name, core = service.spec.workload, kubernetes.client.CoreV1Api(client)
            time.sleep(CONTROLLER_ACTS_WITHIN_S)
            daemonset = kubernetes.client.AppsV1Api(client).read_namespaced_daemon_set_status(name, NAMESPACE)
            events = core.list_namespaced_event(NAMESPACE, field_selector=f"involvedObject.name={name}").items
        status = daemonset.status
        assert status.desired_number_scheduled == status.current_number_scheduled == ENDPOINTS
        assert status.number_ready == status.number_available == ENDPOINTS
        assert (status.number_misscheduled, status.number_unavailable) == (0, None)
        assert status.observed_generation == daemonset.metadata.generation
        assert [event.reason for event in events] == []
        assert pods(cluster, service) == before
    finally:
        service.delete()
        service.close()


def test_adopted_pods_have_the_status_that_kwok_gives_native_ones(
    fleet: Fleet, cluster: EmbeddedCluster
) -> None:
    statuses = []
    for mode in ("native", "adopted"):
        service = a_service(cluster, f"web-status-{mode}", 1, mode)
        try:
            service.prepare()
            with cluster.endpoint.client() as client:
                (pod,) = (
                    kubernetes.client.CoreV1Api(client)
                    .list_namespaced_pod(NAMESPACE, label_selector=f"app={service.spec.workload}")
                    .items
                )
        finally:
            service.delete()
            service.close()
        status = pod.status.to_dict()
        conditions = {c.type: c.status for c in pod.status.conditions if c.type != "PodScheduled"}
        (container,) = status["container_statuses"]
        set_alike = ("phase", "host_ip", "host_ips", "pod_ip", "pod_ips")
        container["state"] = [state for state, since in container["state"].items() if since]
        statuses.append(({key: status[key] for key in set_alike}, conditions, container))
    assert statuses[0] == statuses[1]


@pytest.mark.parametrize("mode", ["native", "adopted"])
def test_another_number_of_endpoints_keeps_the_pods_that_stay(
    fleet: Fleet, cluster: EmbeddedCluster, mode: EndpointMode
) -> None:
    few, more = (a_service(cluster, f"web-resized-{mode}", count, mode) for count in (20, 30))
    try:
        few.prepare()
        before = pods(cluster, few)
        more.prepare()
        after = pods(cluster, more)
        assert len(before) == 20
        assert len(after) == 30
        assert before.items() <= after.items()
    finally:
        more.delete()
        for service in (few, more):
            service.close()
