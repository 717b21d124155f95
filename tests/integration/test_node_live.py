"""Real nodes: real daemons under a limit, charged for every page, and gone without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes
import pytest
import yaml

from framework import network
from framework.binaries import Binaries
from framework.cluster import KUBELET_SYSCTLS, EmbeddedCluster
from framework.ledger import Ledger
from framework.process import inside, run
from framework.realnode import CopyPool, HostNode
from framework.run_objects import LEASE_NAMESPACE
from framework.spec import Ballast, RealNodeSpec
from framework.units import MIB
from framework.wait import wait_until

BALLAST_BYTES = 200 * MIB
LARGE = RealNodeSpec(
    memory_bytes=900 * MIB,
    kube_proxy="1.37.2",
    kube_proxy_config={"nftables": {"minSyncPeriod": "3s"}, "conntrack": {"min": 0}},
)
SMALL = RealNodeSpec(
    memory_bytes=600 * MIB,
    kube_proxy="1.35.0",
    ballast=(Ballast(name="ballast", kind="besteffort", memory_bytes=BALLAST_BYTES),),
)


def sysctls() -> dict[str, str]:
    return {key: Path("/proc/sys", key).read_text().strip() for key in KUBELET_SYSCTLS}


def lease_of(cluster: EmbeddedCluster, node: str) -> Any:
    """The spec of a node's lease; kubelet makes it shortly after the node. None while there is none."""
    with cluster.endpoint.client() as client:
        leases = kubernetes.client.CoordinationV1Api(client).list_namespaced_lease(LEASE_NAMESPACE).items
    return next((lease.spec for lease in leases if lease.metadata.name == node), None)


@dataclass(frozen=True)
class Pair:
    """Two nodes that live at the same time, and the host's sysctls as they were before."""

    large: HostNode
    small: HostNode
    sysctls_before: dict[str, str]


@pytest.fixture(scope="module")
def pair(cluster: EmbeddedCluster, binaries: Binaries, ledger: Ledger, copies: CopyPool) -> Iterator[Pair]:
    before = sysctls()
    large, small = (
        HostNode.prepare(spec, name, cluster=cluster, binaries=binaries, ledger=ledger, pool=copies)
        for spec, name in ((LARGE, "real-large"), (SMALL, "real-small"))
    )
    try:
        for node in (large, small):
            node.boot()
        large.start_kube_proxy()
        yield Pair(large, small, before)
    finally:
        for node in (large, small):
            if node.cgroup.path.exists():
                node.stop()


def test_both_are_ready_through_their_own_kubelet(pair: Pair, cluster: EmbeddedCluster) -> None:
    with cluster.endpoint.client() as client:
        core = kubernetes.client.CoreV1Api(client)
        for node in (pair.large, pair.small):
            assert node.node_condition() == "True"
            status = core.read_node(node.name).status
            assert status.node_info.kubelet_version == f"v{node.binaries['kubelet'].version}"
            assert ("InternalIP", node.address) in {(a.type, a.address) for a in status.addresses}


def test_their_leases_are_productions(pair: Pair, cluster: EmbeddedCluster) -> None:
    for node in (pair.large, pair.small):
        lease = wait_until(lambda: lease_of(cluster, node.name), what="a lease", timeout_s=20)  # noqa: B023
        assert lease.holder_identity == node.name
        assert lease.lease_duration_seconds == 40


def test_its_processes_are_its_own(pair: Pair, ledger: Ledger) -> None:
    for node, daemons in (
        (pair.large, {"containerd", "kubelet", "kube-proxy"}),
        (pair.small, {"ballast", "containerd", "kubelet"}),
    ):
        assert set(node.daemons) == daemons
        inside_cgroup = set(node.cgroup.pids())
        assert {daemon.pid for daemon in node.daemons.values()} <= inside_cgroup
        own = Path(network.NETNS_ROOT, node.netns).stat().st_ino
        for name, daemon in node.daemons.items():
            if name != "ballast":
                assert Path(f"/proc/{daemon.pid}/ns/net").stat().st_ino == own
                assert Path(f"/proc/{daemon.pid}/exe").readlink().is_relative_to(ledger.folder)


def test_no_executable_is_shared_between_nodes_that_live(pair: Pair) -> None:
    large, small = (
        {
            link.resolve()
            for folder in (node.executables.bin, node.executables.lib)
            for link in folder.iterdir()
        }
        for node in (pair.large, pair.small)
    )
    assert {copy.name[4:] for copy in large} >= {"kubelet", "containerd", "nft", "kube-proxy", "libc.so.6"}
    assert not large & small


def test_libraries_are_mapped_from_the_nodes_own_copies(pair: Pair) -> None:
    maps = Path(f"/proc/{pair.large.daemons['containerd'].pid}/maps").read_text()
    mapped = {Path(line.split()[-1]) for line in maps.splitlines() if ".so" in line}
    own = {link.resolve() for link in pair.large.executables.lib.iterdir()}
    assert any("libc.so" in path.name for path in mapped)
    assert {path for path in mapped - own if not path.name.startswith("ld-")} == set()


def test_limit_page_cache_and_ballast_are_charged(pair: Pair) -> None:
    large, small = pair.large.cgroup.read(), pair.small.cgroup.read()
    assert (large.limit_bytes, small.limit_bytes) == (LARGE.memory_bytes, SMALL.memory_bytes)
    for reading in (large, small):
        assert reading.file_bytes > 50 * MIB
        assert reading.oom_kills == 0
    assert BALLAST_BYTES < small.anonymous_bytes < BALLAST_BYTES + 200 * MIB
    assert large.anonymous_bytes < 200 * MIB


def test_the_kube_proxy_configuration_that_was_asked_is_used(pair: Pair) -> None:
    written = yaml.safe_load((pair.large.folder / "kube-proxy.yaml").read_text())
    assert written["nftables"] == {"minSyncPeriod": "3s"}
    assert written["mode"] == "nftables"
    assert written["conntrack"]["maxPerCore"] == 0
    tables = wait_until(
        lambda: run(inside(["nft", "list", "tables"], netns=pair.large.netns)).text or None,
        what="kube-proxy's tables",
        timeout_s=30,
    )
    assert "table ip kube-proxy" in tables


def test_logs_and_configuration_are_kept(pair: Pair, tmp_path: Path) -> None:
    pair.large.keep_logs(tmp_path / "logs")
    kept = {path.name for path in (tmp_path / "logs").iterdir() if path.stat().st_size}
    assert kept == {
        *("kubelet.log", "kubelet.yaml", "containerd.log", "containerd.toml"),
        *("kube-proxy.log", "kube-proxy.yaml"),
    }


def test_ends_without_a_trace_and_without_harm_to_its_neighbour(
    pair: Pair, cluster: EmbeddedCluster, ledger: Ledger
) -> None:
    large, small = pair.large, pair.small
    changed = sysctls()
    assert changed["vm/overcommit_memory"] == "1"
    assert changed["kernel/panic"] == "10"

    large.stop()
    assert {daemon.exit_code for daemon in large.daemons.values()} - {None} != set()
    assert large.netns not in network.list_netns()
    assert not large.cgroup.path.exists()
    assert not large.folder.exists()
    assert large.node_condition() is None

    assert sysctls() == changed
    assert small.netns in network.list_netns()
    assert small.folder.is_dir()
    assert all(daemon.exit_code is None for daemon in small.daemons.values())
    assert small.node_condition() == "True"

    small.stop()
    assert sysctls() == pair.sysctls_before
    assert small.netns not in network.list_netns()
    assert small.cgroup.pids() == ()
    links = run(inside(["ip", "-oneline", "link"], netns=cluster.netns)).text
    assert "real-" not in links
    assert not any("/nodes/" in str(thing) or "-real-" in str(thing) for thing in ledger.things())
