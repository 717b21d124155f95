"""A client behind a real node sees what the node's rules do: whom they send it to, and that they are gone."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes
import pytest

from framework import network
from framework.analysis import traffic
from framework.binaries import Binaries
from framework.cgroup import memory_cgroup
from framework.cluster import EmbeddedCluster
from framework.errors import KilonodeError
from framework.fleet import node_address
from framework.ledger import Ledger, clean
from framework.observe import delete_ruleset, read_ruleset
from framework.outcome import Connect, Traffic
from framework.process import inside, run
from framework.realnode import CopyPool, HostNode
from framework.spec import Protocol, RealNodeSpec, ServiceSpec
from framework.traffic import ATTEMPT_S_MAX, Asking, Backends, Client
from framework.units import MIB
from framework.wait import wait_until
from framework.workload import NAMESPACE, DaemonSetService

if TYPE_CHECKING:
    from tests.integration.conftest import Story

ENDPOINTS = 100
PORT = 80
ASKED_S = 4.0
"""200 attempts: enough for a percentile, and for a spread that is told from a wrong one."""
PROGRAM_TIMEOUT_S = 60.0
STORY_TIMEOUT_S = 120.0
ENDPOINT = node_address(7)
ENDPOINT_V6 = "fd00:10:64::5"
MEASURES = """
def test_story(fleet, real_node, daemonset_service, kube_proxy):
    service = daemonset_service(endpoints=30)
    node = real_node(memory="1GiB", kube_proxy=kube_proxy)
    node.program(service)
"""
OPTIONS = ("--max-nodes=100", "--endpoint-mode=endpointslices", "--kube-proxy=1.37.2")


@pytest.fixture(scope="module")
def backends(cluster: EmbeddedCluster, ledger: Ledger) -> Iterator[Backends]:
    made = Backends(cluster, ledger)
    made.serve((PORT,))
    yield made
    (pid,) = made.cgroup.pids()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(KilonodeError, match="backends-80 ended with signal SIGKILL"):
        wait_until(made.require_alive, what="its end", timeout_s=10)
    made.stop()
    assert made.netns not in network.list_netns()
    assert not made.cgroup.path.exists()
    assert not Path(f"/proc/{pid}").exists()
    assert "backends" not in links(cluster.netns)
    assert not any("backends" in str(thing) or "traffic" in str(thing) for thing in ledger.things())


@pytest.fixture(scope="module", params=["1.35.0", "1.37.2"])
def node(
    request: pytest.FixtureRequest, serving: Callable[[RealNodeSpec, str], AbstractContextManager[HostNode]]
) -> Iterator[HostNode]:
    version: str = request.param
    spec = RealNodeSpec(memory_bytes=900 * MIB, kube_proxy=version)
    with serving(spec, f"real-{version.replace('.', '-')}") as made:
        yield made


@pytest.fixture(scope="module")
def client(node: HostNode, backends: Backends, ledger: Ledger) -> Iterator[Client]:
    made = Client(backends, ledger, node_netns=node.netns, node_address=node.address)
    yield made
    made.stop()


@pytest.fixture
def ask(client: Client) -> Iterator[Callable[..., Asking]]:
    """``Client.start``; what it started is ended after the test."""
    started: list[Asking] = []

    def start(*target: Any) -> Asking:
        started.append(client.start(*target))
        return started[-1]

    yield start
    for asking in started:
        asking.stop()


@pytest.fixture
def service(node: HostNode, cluster: EmbeddedCluster) -> Iterator[DaemonSetService]:
    """A Service that the node is programmed for."""
    made = DaemonSetService(
        ServiceSpec(name="asked", endpoints=ENDPOINTS, mode="endpointslices", ports=(PORT,)),
        cluster.endpoint,
        loading_pods=cluster.loading_pods,
    )
    made.apply()
    wait_for_rules(node, made.full_name, ENDPOINTS)
    yield made
    made.delete()
    wait_for_rules(node, made.full_name, 0)
    made.close()


@pytest.fixture
def of_a_kind(node: HostNode, cluster: EmbeddedCluster) -> Iterator[Callable[..., str]]:
    """``of_a_kind(name, protocol, **spec)`` has a Service of any kind programmed, and gives its address."""
    with cluster.endpoint.client() as api:
        core, discovery = kubernetes.client.CoreV1Api(api), kubernetes.client.DiscoveryV1Api(api)
        names: list[str] = []

        def make(name: str, protocol: Protocol, **spec: Any) -> str:
            ports = [{"name": "asked", "port": PORT, "protocol": protocol}]
            names.append(name)
            made = core.create_namespaced_service(
                NAMESPACE, {"metadata": {"name": name}, "spec": {"ports": ports, **spec}}
            )
            piece = {
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "ports": ports,
                "endpoints": [{"addresses": [node_address(index)]} for index in range(ENDPOINTS)],
            }
            discovery.create_namespaced_endpoint_slice(NAMESPACE, piece)
            wait_for_rules(node, f"{NAMESPACE}/{name}", ENDPOINTS)
            return str(made.spec.cluster_ip)

        yield make
        for name in names:
            core.delete_namespaced_service(name, NAMESPACE)
            discovery.delete_namespaced_endpoint_slice(name, NAMESPACE)


def links(netns: str) -> set[str]:
    return {link["ifname"] for link in json.loads(run(inside(["ip", "-json", "link"], netns=netns)).stdout)}


def wait_for_rules(node: HostNode, service: str, endpoints: int) -> None:
    wait_until(
        lambda: read_ruleset(netns=node.netns, services=(service,)).endpoints == endpoints or None,
        what=f"{endpoints} endpoints of {service} on {node.name}",
        timeout_s=PROGRAM_TIMEOUT_S,
        describe=lambda: node.daemons["kube-proxy"].log_tail(1000),
    )


def met(connects: Callable[[float], tuple[Connect, ...]], *, for_s: float = ASKED_S) -> Traffic:
    """What a client meets from now on."""
    zero_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    connects(zero_s)
    time.sleep(for_s + ATTEMPT_S_MAX)
    return traffic(connects(zero_s), begin_s=0.0, end_s=for_s, endpoints=ENDPOINTS)


def assert_even(seen: Traffic) -> None:
    """As even as equal chances are: off by four standard deviations once in 16,000."""
    n, picks = ENDPOINTS, seen.served
    missed = n * (1 - 1 / n) ** picks
    variance = n * (n - 1) * (1 - 2 / n) ** picks + missed - missed**2
    assert seen.backends_expected == pytest.approx(n - missed)
    assert abs(seen.backends - seen.backends_expected) <= 4 * math.sqrt(variance)
    assert seen.busiest_share is not None
    assert seen.busiest_share < 0.08


def peers(backends: Backends) -> set[str]:
    """The addresses from which connections came to the backends, for the minute that the kernel remembers."""
    sockets = run(inside(["ss", "--no-header", "--tcp", "--numeric", "--all"], netns=backends.netns)).text
    fields = (line.split() for line in sockets.splitlines())
    return {peer.rpartition(":")[0] for state, _, _, _, peer in fields if state == "TIME-WAIT"}


def test_a_service_is_served_by_all_its_endpoints_alike(
    client: Client, service: DaemonSetService, node: HostNode, backends: Backends
) -> None:
    client.ask(str(service.cluster_ip), PORT)
    seen = met(client.connects)
    assert (seen.success, seen.errors) == (1.0, {})
    assert seen.attempts == pytest.approx(ASKED_S * 50, rel=0.2)
    assert_even(seen)
    assert seen.connect_s_p50 is not None
    assert seen.connect_s_p99 is not None
    assert 0 < seen.connect_s_p50 <= seen.connect_s_p99 < 0.5

    own = str(client.subnets[0][2])
    assert own in peers(backends), "the node masquerades what it forwards"
    assert node.address not in peers(backends)


def test_what_it_asks_is_replaced_by_another_address(client: Client, service: DaemonSetService) -> None:
    client.ask(ENDPOINT, PORT)
    direct = met(client.connects, for_s=1.0)
    assert (direct.success, direct.backends) == (1.0, 1)
    client.ask(str(service.cluster_ip), PORT)
    client.ask(str(service.cluster_ip), PORT)
    through = met(client.connects, for_s=1.0)
    assert through.success == 1.0
    assert through.backends > 10


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("address", [ENDPOINT, ENDPOINT_V6])
def test_one_endpoint_is_asked_by_no_rule(
    ask: Callable[..., Asking], address: str, protocol: Protocol
) -> None:
    if ":" in address and not network.has_ipv6():
        pytest.skip("the kernel has no IPv6; remedy: boot without ipv6.disable=1")
    found = ask(address, PORT, protocol)
    seen = met(found.connects, for_s=1.0)
    assert (seen.success, seen.backends, seen.busiest_share) == (1.0, 1, 1.0)


def test_a_udp_service_is_served_by_all_its_endpoints_alike(
    of_a_kind: Callable[..., str], ask: Callable[..., Asking]
) -> None:
    seen = met(ask(of_a_kind("asked-udp", "UDP"), PORT, "UDP").connects)
    assert (seen.success, seen.errors) == (1.0, {})
    assert_even(seen)


def test_with_session_affinity_one_client_has_one_endpoint(
    of_a_kind: Callable[..., str], ask: Callable[..., Asking]
) -> None:
    address = of_a_kind("asked-held", "TCP", sessionAffinity="ClientIP")
    seen = met(ask(address, PORT).connects, for_s=2.0)
    assert (seen.success, seen.backends, seen.busiest_share) == (1.0, 1, 1.0)
    assert seen.backends_expected > 10


def test_neither_clients_nor_backends_are_the_nodes_to_pay(
    client: Client, backends: Backends, node: HostNode, ask: Callable[..., Asking]
) -> None:
    asking = ask(ENDPOINT, PORT)
    wait_until(lambda: asking.connects(0.0) or None, what="a connect", timeout_s=10)
    pids = set(backends.cgroup.pids())
    assert asking.daemon.pid in pids
    assert len(pids) >= 2
    assert not pids & set(node.cgroup.pids())
    namespaces = {Path(f"/proc/{pid}/ns/net").stat().st_ino for pid in pids}
    assert namespaces == {
        Path(network.NETNS_ROOT, name).stat().st_ino for name in (backends.netns, client.netns)
    }


def test_rules_that_are_gone_are_an_outage_of_a_node_that_is_ready(
    node: HostNode, client: Client, service: DaemonSetService
) -> None:
    client.ask(str(service.cluster_ip), PORT)
    assert met(client.connects, for_s=1.0).success == 1.0

    node.stop_kube_proxy()
    stale = met(client.connects, for_s=1.0)
    assert stale.success == 1.0, "rules outlive kube-proxy"

    delete_ruleset(netns=node.netns)
    outage = met(client.connects)
    assert (outage.success, outage.backends, outage.connect_s_p50) == (0.0, 0, None)
    assert outage.errors == {"timeout": outage.attempts}
    assert outage.attempts == pytest.approx(ASKED_S * 50, rel=0.2)
    assert node.node_condition() == "True"

    node.start_kube_proxy()
    wait_for_rules(node, service.full_name, ENDPOINTS)
    assert met(client.connects).success == 1.0, "no attempt is held to where an earlier one went"


def test_a_service_without_endpoints_is_refused_as_often_as_the_kernel_says_so(
    node: HostNode, of_a_kind: Callable[..., str], cluster: EmbeddedCluster, ask: Callable[..., Asking]
) -> None:
    address = of_a_kind("asked-empty", "TCP")
    asking = ask(address, PORT)
    assert met(asking.connects, for_s=1.0).success == 1.0
    with cluster.endpoint.client() as api:
        kubernetes.client.DiscoveryV1Api(api).patch_namespaced_endpoint_slice(
            "asked-empty", NAMESPACE, {"endpoints": []}
        )
    wait_for_rules(node, f"{NAMESPACE}/asked-empty", 0)
    seen = met(asking.connects)
    assert seen.success == 0.0
    assert set(seen.errors) == {"refused", "timeout"}, "icmp_ratelimit lets one refusal a second pass"
    assert seen.errors["refused"] < seen.errors["timeout"]


def test_a_client_goes_without_a_trace_and_another_may_come(
    cluster: EmbeddedCluster, binaries: Binaries, ledger: Ledger, copies: CopyPool, backends: Backends
) -> None:
    node = HostNode.prepare(
        RealNodeSpec(memory_bytes=600 * MIB, kube_proxy="1.37.2"),
        "real-left",
        cluster=cluster,
        binaries=binaries,
        ledger=ledger,
        pool=copies,
    )
    try:
        before = ledger.things(), backends.cgroup.pids()
        for _ in range(2):
            client = Client(backends, ledger, node_netns=node.netns, node_address=node.address)
            client.ask(ENDPOINT, PORT)
            assert met(client.connects, for_s=0.5).success == 1.0
            assert client.netns in network.list_netns()
            client.stop()
            assert client.netns not in network.list_netns()
            assert (ledger.things(), backends.cgroup.pids()) == before
            assert "client" not in links(node.netns)
    finally:
        node.stop()


def test_after_sigkill_the_next_run_removes_it(
    tell: Callable[..., Story], live_state: Path, runs_now: Callable[[], frozenset[str]]
) -> None:
    before = runs_now()
    story = tell(MEASURES, *OPTIONS)

    def asking() -> str | None:
        assert story.process.poll() is None, story.output
        for run_id in runs_now() - before:
            cgroup = memory_cgroup(f"kilonode-{run_id}/traffic")
            if cgroup.path.exists() and len(cgroup.pids()) == 2:
                return run_id
        return None

    run_id = wait_until(asking, what="a client that asks", timeout_s=STORY_TIMEOUT_S, interval_s=0.05)
    name = f"kilonode-{run_id}"
    cgroup = memory_cgroup(f"{name}/traffic")
    story.process.kill()
    assert story.end() == -signal.SIGKILL
    assert {f"{name}-backends", f"{name}-real-1-client"} <= set(network.list_netns())
    assert len(cgroup.pids()) == 2

    assert clean(live_state, include_kept=False) == ((run_id,), ())
    assert not any(each.startswith(name) for each in network.list_netns())
    assert not memory_cgroup(name).path.exists()
