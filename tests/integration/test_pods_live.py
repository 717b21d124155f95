"""Ballast pods of a real node: charged to it, killed by its kernel, started again by its kubelet, gone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from framework.binaries import Binaries
from framework.cgroup import CGROUP_ROOT, MemoryCgroup
from framework.cluster import EmbeddedCluster
from framework.ledger import Ledger
from framework.oom_scores import production_scores
from framework.outcome import PodRecord
from framework.process import CAP_SYS_RESOURCE, has_capability, inside, oom_score_adj_of
from framework.realnode import CopyPool, HostNode, obstacle
from framework.spec import Ballast, RealNodeSpec
from framework.units import MIB
from framework.wait import wait_until

HELD_BYTES = 48 * MIB
PODS = (
    Ballast(name="best-effort", kind="besteffort", form="pod", memory_bytes=HELD_BYTES),
    Ballast(name="burstable", kind="burstable", form="pod", memory_bytes=HELD_BYTES),
    Ballast(name="guaranteed", kind="guaranteed", form="pod", memory_bytes=HELD_BYTES),
    Ballast(name="cache", kind="besteffort", form="pod", memory_bytes=HELD_BYTES, content="page_cache"),
)
SPEC = RealNodeSpec(memory_bytes=600 * MIB, kube_proxy="1.37.2", text="host", ballast=PODS)
BUILT_IN_FOLDERS = ("/run/containerd", "/var/lib/kubelet", "/var/log/containers", "/var/log/pods")
RESTART_TIMEOUT_S = 60.0
HOG = "held = bytearray({size_bytes}); held[::4096] = b'x' * len(held[::4096])"


def below(folder: str) -> set[Path]:
    """Everything in a folder of the host, apart from what comes and goes with processes of others."""
    return {path for path in Path(folder).rglob("*") if not path.is_socket()}


@pytest.fixture(scope="module")
def host_before() -> dict[str, set[Path]]:
    return {folder: below(folder) for folder in BUILT_IN_FOLDERS}


@pytest.fixture(scope="module")
def node(
    host_before: dict[str, set[Path]],
    cluster: EmbeddedCluster,
    binaries: Binaries,
    ledger: Ledger,
    copies: CopyPool,
) -> Iterator[HostNode]:
    reason = obstacle(binaries, ledger)
    if reason is not None:
        pytest.skip(f"real pods can't run here: {reason}")
    made = HostNode.prepare(SPEC, "real-pods", cluster=cluster, binaries=binaries, ledger=ledger, pool=copies)
    try:
        made.boot()
        yield made
    finally:
        if made.cgroup.path.exists():
            made.stop()


def is_running(pid: int) -> bool:
    """False also for one that ended and that init has not reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def comms(cgroup: MemoryCgroup) -> set[str]:
    """The names of the processes inside; one may end meanwhile."""
    names = set()
    for pid in cgroup.pids():
        with suppress(FileNotFoundError, ProcessLookupError):
            names.add(Path(f"/proc/{pid}/comm").read_text().strip())
    return names


def by_name(node: HostNode) -> dict[str, PodRecord]:
    return {record.name: record for record in node.pod_records()}


def test_the_look_for_obstacles_leaves_nothing(binaries: Binaries, ledger: Ledger) -> None:
    before = ledger.things()
    obstacle(binaries, ledger)
    assert ledger.things() == before
    assert not (ledger.folder / "pod-probe").exists()
    assert not list(CGROUP_ROOT.glob(f"*/kilonode-{ledger.run_id}-probe"))


def test_they_run_in_their_classes(node: HostNode) -> None:
    def reported() -> dict[str, PodRecord] | None:
        """kubelet tells the API server a moment after their memory is held."""
        records = by_name(node)
        return records if all(record.state == "Running" for record in records.values()) else None

    records = wait_until(reported, what="the pods running", timeout_s=RESTART_TIMEOUT_S)
    for pod in PODS:
        record = records[pod.name]
        assert (record.qos, record.phase, record.state) == (pod.qos, "Running", "Running")
        assert (record.restarts, record.last_end) == (0, None)


def test_they_are_charged_to_their_node(node: HostNode) -> None:
    total = node.cgroup.read()
    anonymous = [pod for pod in PODS if pod.content == "anonymous"]
    assert total.anonymous_bytes > HELD_BYTES * len(anonymous)
    for pod in anonymous:
        cgroup = node.pods.cgroup_of(pod)
        assert cgroup.kernel_path.startswith(f"{node.cgroup.kernel_path}/kubepods/")
        assert HELD_BYTES <= cgroup.read().anonymous_bytes < HELD_BYTES + 16 * MIB
        assert comms(cgroup) == {"pause", pod.name}
    cache = node.pods.cgroup_of(PODS[-1])
    assert cache.read().file_bytes > HELD_BYTES * 0.9
    assert cache.read().anonymous_bytes < 16 * MIB
    assert comms(cache) == {"pause", "cache"}


def test_their_oom_scores_are_those_of_a_machine_of_the_nodes_size(node: HostNode) -> None:
    containerd = oom_score_adj_of(node.daemons["containerd"].pid)
    for pod in PODS:
        wanted = production_scores(SPEC)[pod.name]
        if wanted < 0 and not has_capability(CAP_SYS_RESOURCE):
            assert containerd is not None
            wanted = max(wanted, containerd)
        assert by_name(node)[pod.name].oom_score_adj == wanted


def test_the_kernel_takes_best_effort_first_and_kubelet_starts_it_again(node: HostNode) -> None:
    charged = node.cgroup.read()
    free_bytes = SPEC.memory_bytes - charged.anonymous_bytes - charged.kernel_bytes
    program = [sys.executable, "-S", "-E", "-c", HOG.format(size_bytes=free_bytes + HELD_BYTES // 2)]
    hog = subprocess.run(inside(program, cgroup_procs=node.home.procs_path), check=False, timeout=60)
    assert hog.returncode == 0

    def restarted() -> dict[str, PodRecord] | None:
        records = by_name(node)
        back = records["best-effort"]
        return records if back.restarts and back.state == "Running" else None

    records = wait_until(
        restarted,
        what="the best-effort pod running again",
        timeout_s=RESTART_TIMEOUT_S,
        describe=lambda: str(by_name(node)),
    )
    # containerd hears of a kill by an event that may come after the container's end.
    assert records["best-effort"].last_end in {"OOMKilled", "Error"}
    assert records["guaranteed"].restarts == 0
    assert node.node_condition() == "True"


def test_they_end_with_their_node_without_a_trace(
    node: HostNode, host_before: dict[str, set[Path]], cluster: EmbeddedCluster
) -> None:
    inside_pods = {pid for pod in PODS for pid in node.pods.cgroup_of(pod).pids()}
    assert len(inside_pods) >= 2 * len(PODS)
    everything = set(node.cgroup.pids())
    shims = {pid for pid in everything if "containerd-shim" in Path(f"/proc/{pid}/comm").read_text()}
    assert len(shims) == len(PODS)
    node.stop()
    assert not any(map(is_running, everything))
    assert not list(CGROUP_ROOT.glob(f"*/{cluster.name}/{node.name}"))
    assert str(node.folder) not in Path("/proc/self/mounts").read_text()
    assert not node.folder.exists()
    assert {folder: below(folder) for folder in BUILT_IN_FOLDERS} == host_before
    with cluster.endpoint.client() as client:
        import kubernetes

        items = kubernetes.client.CoreV1Api(client).list_namespaced_pod("default").items
    assert not [item for item in items if item.spec.node_name == node.name]
