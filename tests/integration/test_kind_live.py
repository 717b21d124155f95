"""Clusters of kind's, as a user has them: created, measured on, killed in, and gone without a trace."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from framework import load_run
from framework.cgroup import CGROUP_ROOT
from framework.cluster.kind import LIMITS_LEAST, NODE_SYSCTLS
from framework.containers import Engine
from framework.ledger import all_runs
from framework.network import list_netns
from framework.report import compared
from framework.wait import wait_until

if TYPE_CHECKING:
    from framework.outcome import RunResult
    from tests.integration.conftest import Story

CREATE_TIMEOUT_S = 300.0
STORY_TIMEOUT_S = 600.0
NFT_DIFFERENCE_MAX = 0.05
MEASURES = """
from framework import MIB, Ballast, Expectation, Watch

def measured(fleet, real_node, daemonset_service, memory, kube_proxy, endpoints, mode, **options):
    fleet.grow_to(1_000)
    service = daemonset_service(endpoints=endpoints, mode=mode)
    return real_node(memory=memory, kube_proxy=kube_proxy, **options).program(service, Watch(failures=1))

def test_thousand(fleet, real_node, daemonset_service):
    pod = Ballast(name="guest", kind="besteffort", memory_bytes=20 * MIB)
    found = measured(fleet, real_node, daemonset_service, "2GiB", "1.37.2", 1_000, "native", ballast=[pod])
    found.expect(Expectation(programming="programmed", ready_throughout=True, nft_bytes_below=12 * MIB))

def test_ten_thousand_of_another_version(fleet, real_node, daemonset_service):
    found = measured(fleet, real_node, daemonset_service, "2GiB", "1.35.0", 10_000, "endpointslices")
    found.expect(
        Expectation(
            programming="programmed", ready_throughout=True,
            nft_bytes_above=105 * MIB, nft_bytes_below=130 * MIB,
        )
    )

def test_too_small(fleet, real_node, daemonset_service):
    found = measured(
        fleet, real_node, daemonset_service, "300MiB", "1.35.0", 30_000, "endpointslices",
        restart="production", oom_policy="flat",
    )
    found.expect(Expectation(programming="nft_killed"))
"""
TOGETHER = """
import pytest
from framework import Expectation

@pytest.mark.parametrize("kube_proxy", ["1.35.0", "1.37.2"])
def test_ten_thousand(fleet, real_node, daemonset_service, kube_proxy):
    fleet.grow_to(1_000)
    service = daemonset_service(endpoints=10_000, mode="endpointslices")
    node = real_node(memory="2GiB", kube_proxy=kube_proxy)
    found = node.program(service)
    found.expect(Expectation(programming="programmed", ready_throughout=True, served="fully"))
"""
LOST = """
from framework import Expectation

def test_lost(fleet, real_node, daemonset_service):
    fleet.grow_to(10)
    service = daemonset_service(endpoints=10)
    node = real_node(memory="2GiB", kube_proxy="1.37.2")
    print("READY FOR THE WORST", flush=True)
    while True:
        node.program(service).expect(Expectation(programming="programmed"))
        node.delete(service)

def test_after_it(fleet, real_node, daemonset_service):
    fleet.grow_to(20)
"""


def sysctls() -> dict[str, str]:
    return {key: Path("/proc/sys", key).read_text() for key in (*NODE_SYSCTLS, *LIMITS_LEAST)}


def links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith("kn")}


def rules() -> str:
    """The host's nftables ruleset, iptables' included."""
    return subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout


def forwarding() -> str:
    return Path("/proc/sys/net/ipv4/ip_forward").read_text()


@pytest.fixture
def untouched(kind_engine: Engine, live_state: Path) -> Iterator[None]:
    """Whatever the test does, the machine is as before when it is over."""

    def state() -> tuple[object, ...]:
        return (
            sysctls(),
            links(),
            set(list_netns()),
            rules(),
            forwarding(),
            set(kind_engine.names()),
            {path.name for path in (CGROUP_ROOT / "memory").glob("kilonode-*")},
            {run.run_id for run in all_runs(live_state / "runs")},
        )

    before = state()
    yield
    assert state() == before


def by_test(story: Story) -> dict[str, RunResult]:
    return {result.test_id.rpartition("::")[2]: result for result in load_run(story.latest)}


@pytest.mark.usefixtures("untouched")
@pytest.mark.timeout(900)
def test_a_cluster_from_its_creation_to_its_end(tell: Callable[..., Story]) -> None:
    story = tell(MEASURES, "--cluster=kind", "--max-nodes=1k", "--kind-workers=1")
    assert story.end(STORY_TIMEOUT_S) == pytest.ExitCode.OK, story.output
    found = by_test(story)
    small, large, killed = (
        found["test_thousand"],
        found["test_ten_thousand_of_another_version"],
        found["test_too_small"],
    )
    for result, endpoints in ((small, 1_000), (large, 10_000)):
        assert result.parameters["cluster"] == "kind"
        assert result.evidence is not None
        assert result.evidence.ruleset is not None
        assert result.evidence.ruleset.endpoints == endpoints
        assert result.evidence.measured_by == "exit_record"
        assert result.evidence.cgroup is not None
        assert result.evidence.cgroup.limit_bytes == 2 << 30
        assert {daemon.name for daemon in result.evidence.daemons} == {"kubelet", "containerd", "kube-proxy"}
        assert {item.id for item in result.fidelity} >= {"kind-worker"}
    versions = {
        (part.name, part.version) for part in large.environment.components if part.name == "kube-proxy"
    }
    assert versions == {("kube-proxy", "1.35.0")}
    assert killed.evidence is not None
    assert killed.evidence.oom_kills
    assert {kill.victim_comm for kill in killed.evidence.oom_kills} >= {"nft"}
    assert small.evidence is not None
    assert [(pod.qos, pod.state) for pod in small.evidence.pods] == [("BestEffort", "Running")]
    logs = {path.name for path in story.latest.glob("*/logs/*") if path.stat().st_size}
    assert logs >= {"kubelet.log", "containerd.log", "kube-proxy.yaml"}
    plane = {path.name.partition(".")[0] for path in story.latest.glob("control-plane/*.log")}
    assert plane >= {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}


@pytest.mark.usefixtures("untouched")
@pytest.mark.timeout(600)
def test_a_cluster_that_is_deleted_under_the_run(tell: Callable[..., Story], kind_engine: Engine) -> None:
    story = tell(LOST, "--cluster=kind", "--max-nodes=100", "--kind-workers=1", "-s", "-rs")
    wait_until(
        lambda: "READY FOR THE WORST" in story.output or None,
        what="a measurement",
        timeout_s=CREATE_TIMEOUT_S,
        describe=lambda: story.output,
    )
    (plane,) = (name for name in kind_engine.names() if name.endswith("-control-plane"))
    kind_engine.run("rm", "--force", "--volumes", plane)
    assert story.end(CREATE_TIMEOUT_S) == pytest.ExitCode.TESTS_FAILED, story.output
    assert "the kind cluster was lost under the run: its etcd and kube-apiserver ended" in story.output
    assert "environment is broken: the kind cluster was lost" in story.output.replace("\n", " ")


@pytest.mark.usefixtures("untouched")
@pytest.mark.timeout(900)
def test_embedded_and_kind_at_once_do_not_disturb_each_other(tell: Callable[..., Story]) -> None:
    kind = tell(TOGETHER, "--cluster=kind", "--max-nodes=1k", "--kind-workers=1", name="kind")
    wait_until(
        lambda: "fleet started" in kind.output or None,
        what="a kind cluster",
        timeout_s=CREATE_TIMEOUT_S,
        describe=lambda: kind.output,
    )
    embedded = tell(TOGETHER, "--max-nodes=1k", name="embedded")
    for story in (embedded, kind):
        assert story.end(STORY_TIMEOUT_S) == pytest.ExitCode.OK, story.output
    results = [*load_run(embedded.latest), *load_run(kind.latest)]
    cells = compared(results)
    assert [(cell.endpoints, cell.kube_proxy) for cell in cells] == [(10_000, "1.35.0"), (10_000, "1.37.2")]
    for cell in cells:
        assert cell.nft_difference is not None
        assert cell.nft_difference < NFT_DIFFERENCE_MAX, cell
    for result in results:
        assert result.outcome is not None
        assert result.outcome.traffic_after is not None
        assert result.parameters["fakes_not_ready"] == 0
