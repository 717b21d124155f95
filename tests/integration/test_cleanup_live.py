"""Clean hands: whatever way a run ends, nothing of it stays on the machine, and its evidence does.

A run that lives in the same state folder is there all the time, and must not notice.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from framework import load_run
from framework.cgroup import memory_cgroup
from framework.cluster import EmbeddedCluster
from framework.ledger import clean, mounts_below
from framework.process import run
from framework.report import load_session

if TYPE_CHECKING:
    from tests.integration.conftest import Story

MEASURES = """
from framework import Expectation

def test_story(fleet, real_node, daemonset_service, kube_proxy):
    fleet.grow_to(30)
    service = daemonset_service(endpoints=30)
    node = real_node(memory="1GiB", kube_proxy=kube_proxy)
    node.program(service).expect(Expectation(programming="programmed"))
"""
OPTIONS = ("--max-nodes=100", "--endpoint-mode=endpointslices", "--kube-proxy=1.37.2")


@dataclass(frozen=True)
class Things:
    """What runs have on this machine."""

    folders: frozenset[str]
    netns: frozenset[str]
    links: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[int]
    mounts: tuple[str, ...]


def things(live_state: Path, run_ids: set[str] | None = None) -> Things:
    """Those of ``run_ids``; without it, of every run in the state folder."""
    folders = {folder.name for folder in (live_state / "runs").iterdir()}
    wanted = folders if run_ids is None else run_ids
    names = {f"kilonode-{run_id}" for run_id in wanted}
    links = json.loads(run(["ip", "-json", "link"]).stdout)
    cgroups = [memory_cgroup(name) for name in sorted(names)]
    return Things(
        folders=frozenset(folders & wanted),
        netns=frozenset(
            path.name for path in Path("/run/netns").iterdir() if any(path.name.startswith(n) for n in names)
        ),
        links=frozenset(link["ifname"] for link in links if link["ifname"].removeprefix("kn") in wanted),
        cgroups=frozenset(
            str(part.path) for cgroup in cgroups for part in cgroup.walk() if part.path.exists()
        ),
        processes=frozenset(pid for cgroup in cgroups for pid in cgroup.pids()),
        mounts=tuple(
            mount
            for run_id in sorted(wanted)
            for mount in mounts_below(str(live_state / "runs" / run_id), Path("/proc/mounts").read_text())
        ),
    )


NOTHING = Things(frozenset(), frozenset(), frozenset(), frozenset(), frozenset(), ())


@pytest.fixture
def mine(cluster: EmbeddedCluster, live_state: Path) -> Things:
    """What the live run has, before the story begins."""
    found = things(live_state)
    assert cluster.netns in found.netns
    return found


def of_the_story(live_state: Path, mine: Things) -> set[str]:
    (run_id,) = {folder.name for folder in (live_state / "runs").iterdir()} - mine.folders
    return {run_id}


def assert_alive(cluster: EmbeddedCluster) -> None:
    answer = run([cluster.binaries["kubectl"].path, "--kubeconfig", cluster.kubeconfig, "get", "nodes"])
    assert answer.exit_code == 0


def test_after_sigkill_the_next_one_removes_everything(
    tell: Callable[..., Story], mine: Things, live_state: Path, cluster: EmbeddedCluster
) -> None:
    story = tell(MEASURES, *OPTIONS)
    story.wait_until_measuring()
    run_ids = of_the_story(live_state, mine)
    story.process.kill()
    assert story.end() == -signal.SIGKILL

    left = things(live_state, run_ids)
    assert left.folders == run_ids
    assert len(left.netns) == 4
    assert len(left.links) == 1
    assert len(left.cgroups) == 4
    assert len(left.processes) >= 8
    (result,) = load_run(story.latest)
    assert result.stage == "started"
    assert load_session(story.latest.resolve()).ended_utc is None

    assert clean(live_state, include_kept=False) == (tuple(run_ids), ())
    assert things(live_state, run_ids) == NOTHING
    assert things(live_state) == mine
    assert_alive(cluster)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_that_cleans_up_itself(
    signum: signal.Signals,
    tell: Callable[..., Story],
    mine: Things,
    live_state: Path,
    cluster: EmbeddedCluster,
) -> None:
    story = tell(MEASURES, *OPTIONS)
    story.wait_until_measuring()
    run_ids = of_the_story(live_state, mine)
    assert things(live_state, run_ids).processes
    story.process.send_signal(signum)
    assert story.end() == pytest.ExitCode.INTERRUPTED, story.output
    assert "KeyboardInterrupt" in story.output

    assert things(live_state, run_ids) == NOTHING
    assert things(live_state) == mine
    (result,) = load_run(story.latest)
    assert (result.stage, result.parameters["endpoints"]) == ("started", 30)
    assert load_session(story.latest.resolve()).ended_utc is not None
    assert_alive(cluster)
