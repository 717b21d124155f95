"""What kube-proxy really makes of each shape and remedy is what is expected, in both of its modes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, get_args

import pytest

from framework.cluster import EmbeddedCluster
from framework.observe import read_iptables, read_ruleset
from framework.outcome import Ruleset
from framework.preflight import require_iptables
from framework.realnode import XTABLES, HostNode
from framework.spec import ManyServicesSpec, ProxyMode, RealNodeSpec, ServiceSpec
from framework.units import MIB
from framework.wait import wait_until
from framework.workload import DaemonSetService, ManyServices, Workload
from framework.workload import programmed as expected_of

ENDPOINTS = 120
PROGRAM_TIMEOUT_S = 60.0
ZONE = "zone-1"
NODE_WATCHED = "Starting node config controller"
"""From here on kube-proxy does not miss that its Node's zone changes; before, it can."""
KUBE_PROXIES = {"nftables": "1.37.2", "iptables": "1.35.0"}
SHAPES: dict[str, dict[str, Any]] = {
    "udp": {"protocol": "UDP"},
    "affinity": {"session_affinity": "ClientIP"},
    "dual-stack": {"dual_stack": True},
    "three-services-of-two-ports": {"services": 3, "ports": (80, 443)},
    "local": {"internal_traffic_policy": "Local"},
    "local-dual-stack": {"internal_traffic_policy": "Local", "dual_stack": True},
    "same-zone": {"traffic_distribution": "PreferSameZone"},
    "headless": {"headless": True},
}


@pytest.fixture(scope="module", params=get_args(ProxyMode))
def node(
    request: pytest.FixtureRequest, serving: Callable[[RealNodeSpec, str], AbstractContextManager[HostNode]]
) -> Iterator[HostNode]:
    mode: ProxyMode = request.param
    if mode == "iptables":
        require_iptables()
    spec = RealNodeSpec(memory_bytes=900 * MIB, kube_proxy=KUBE_PROXIES[mode], proxy_mode=mode)
    with serving(spec, f"real-{mode}") as made:
        wait_until(
            lambda: NODE_WATCHED in made.daemons["kube-proxy"].log_tail() or None,
            what="kube-proxy watching its Node",
            timeout_s=PROGRAM_TIMEOUT_S,
            interval_s=0.1,
        )
        made.label_zone(ZONE)
        yield made


def listing(node: HostNode, workload: Workload) -> Ruleset:
    if node.spec.proxy_mode == "iptables":
        return read_iptables(
            netns=node.netns, services=workload.full_names, xtables=node.binaries[XTABLES].path
        )
    return read_ruleset(netns=node.netns, services=workload.full_names)


def goes_through(node: HostNode, workload: Workload) -> None:
    """It is programmed as expected, and gone when it is withdrawn."""
    expected = expected_of(workload.spec, node_zone=ZONE)
    last: list[Ruleset] = []

    def wait(what: str, endpoints: int, service_ports: int) -> None:
        def reached() -> bool | None:
            last[:] = [listing(node, workload)]
            return (last[0].endpoints, last[0].service_ports) == (endpoints, service_ports) or None

        wait_until(
            reached,
            what=what,
            timeout_s=PROGRAM_TIMEOUT_S,
            interval_s=0.25,
            describe=lambda: f"{last}; {node.daemons['kube-proxy'].log_tail(1000)}",
        )

    assert expected.service_ports is not None
    workload.apply()
    try:
        wait("programmed as expected", expected.endpoints, expected.service_ports)
        assert expected.matches(last[0])
    finally:
        workload.withdraw()
    wait("gone", 0, 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape(node: HostNode, cluster: EmbeddedCluster, shape: str) -> None:
    spec = ServiceSpec(name=f"web-{shape}", endpoints=ENDPOINTS, mode="endpointslices", **SHAPES[shape])
    service = DaemonSetService(spec, cluster.endpoint, loading_pods=cluster.loading_pods)
    try:
        goes_through(node, service)
    finally:
        service.close()


def test_many_services(node: HostNode, cluster: EmbeddedCluster) -> None:
    spec = ManyServicesSpec(name="few", count=30, endpoints_each=2)
    goes_through(node, ManyServices(spec, cluster.endpoint))


def test_iptables_runs_from_private_copies(node: HostNode) -> None:
    """kubelet's too, and its extensions, or they would be charged to whoever used them first."""
    assert (node.executables.bin / "iptables-restore").resolve().is_relative_to(node.folder.parents[1])
    extensions = list(node.executables.xtables.iterdir())
    assert {"libxt_comment.so", "libxt_statistic.so"} <= {path.name for path in extensions}
    assert all(path.resolve().is_relative_to(node.folder.parents[1]) for path in extensions)
