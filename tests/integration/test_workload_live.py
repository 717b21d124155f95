"""A Service made by real controllers and one made of slices are the same to a real node."""

from __future__ import annotations

from collections.abc import Iterator

import kubernetes
import pytest

from framework.binaries import Binaries
from framework.cluster import ApiEndpoint, EmbeddedCluster
from framework.fleet import Fleet, node_address
from framework.ledger import Ledger
from framework.observe import read_ruleset
from framework.outcome import Ruleset
from framework.realnode import CopyPool, HostNode
from framework.spec import EndpointMode, RealNodeSpec, ServiceSpec
from framework.units import MIB
from framework.wait import wait_until
from framework.workload import NAMESPACE, DaemonSetService, Endpoints

ENDPOINTS = 120
PROGRAM_TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def fleet(fakes: Fleet) -> Fleet:
    fakes.grow_to(ENDPOINTS + 10)
    return fakes


@pytest.fixture(scope="module")
def node(
    fleet: Fleet, cluster: EmbeddedCluster, binaries: Binaries, ledger: Ledger, copies: CopyPool
) -> Iterator[HostNode]:
    spec = RealNodeSpec(memory_bytes=900 * MIB, kube_proxy="1.37.2")
    made = HostNode.prepare(
        spec, "real-served", cluster=cluster, binaries=binaries, ledger=ledger, pool=copies
    )
    try:
        made.boot()
        made.start_kube_proxy()
        yield made
    finally:
        made.stop()


@pytest.fixture(params=["native", "endpointslices"])
def service(
    request: pytest.FixtureRequest, fleet: Fleet, cluster: EmbeddedCluster
) -> Iterator[DaemonSetService]:
    mode: EndpointMode = request.param
    made = DaemonSetService(ServiceSpec(name=f"web-{mode}", endpoints=ENDPOINTS, mode=mode), cluster.endpoint)
    yield made
    made.delete()
    made.close()


def addresses(endpoint: ApiEndpoint, service: str) -> list[str]:
    with endpoint.client() as client:
        slices = (
            kubernetes.client.DiscoveryV1Api(client)
            .list_namespaced_endpoint_slice(NAMESPACE, label_selector=f"kubernetes.io/service-name={service}")
            .items
        )
    return [a for piece in slices for entry in piece.endpoints or () for a in entry.addresses]


def programmed(node: HostNode, service: DaemonSetService, endpoints: int) -> Ruleset:
    last: list[Ruleset] = []

    def complete() -> Ruleset | None:
        last[:] = [read_ruleset(netns=node.netns, endpoints_of=service.full_name)]
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
    if service.spec.mode == "native":
        assert heard[-1] == ENDPOINTS
    assert service.endpoints() == Endpoints(slices=0, ready=0, distinct_addresses=0)
    service.apply()
    found = service.wait_for_endpoints()
    assert found == Endpoints(slices=2, ready=ENDPOINTS, distinct_addresses=ENDPOINTS)
    held = addresses(cluster.endpoint, service.spec.name)
    assert sorted(held) == sorted(node_address(index) for index in range(ENDPOINTS))
    assert programmed(node, service, ENDPOINTS).endpoints == ENDPOINTS
    service.withdraw()
    assert programmed(node, service, 0).endpoints == 0
    assert addresses(cluster.endpoint, service.spec.name) == []


def test_another_number_of_endpoints_keeps_the_pods_that_stay(fleet: Fleet, cluster: EmbeddedCluster) -> None:
    def pods() -> dict[str, str]:
        with cluster.endpoint.client() as client:
            items = kubernetes.client.CoreV1Api(client).list_namespaced_pod(NAMESPACE).items
        return {pod.spec.node_name: pod.metadata.uid for pod in items if not pod.metadata.deletion_timestamp}

    few, more = (
        DaemonSetService(ServiceSpec(name="web-resized", endpoints=count, mode="native"), cluster.endpoint)
        for count in (20, 30)
    )
    try:
        few.prepare()
        before = pods()
        more.prepare()
        after = pods()
        assert len(before) == 20
        assert len(after) == 30
        assert before.items() <= after.items()
    finally:
        more.delete()
        for service in (few, more):
            service.close()
