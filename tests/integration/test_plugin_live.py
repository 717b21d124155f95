"""A whole measurement, as a user makes one: pytest on a file, a table, a run folder, an exit status."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from framework import load_run

if TYPE_CHECKING:
    from tests.integration.conftest import Story

MEASURES = """
from framework import MIB, Expectation

def test_story(fleet, real_node, daemonset_service, kube_proxy):
    fleet.grow_to(30)
    service = daemonset_service(endpoints=30)
    node = real_node(memory="1GiB", kube_proxy=kube_proxy)
    node.program(service).expect(EXPECTATION)
"""
OPTIONS = ("--max-nodes=100", "--endpoint-mode=endpointslices", "--kube-proxy=1.37.2")
FITS = 'Expectation(programming="programmed", nft_bytes_below=20 * MIB, ready_throughout=True)'
TOO_MUCH = 'Expectation(programming="programmed", nft_bytes_below=1 * MIB)'


IN_EVERY_MODE = """
import pytest
from framework import Expectation

@pytest.mark.parametrize("mode", ["native", "adopted", "endpointslices"])
def test_story(fleet, real_node, daemonset_service, mode):
    fleet.grow_to(600)
    service = daemonset_service(endpoints=600, mode=mode)
    node = real_node(memory="1GiB", kube_proxy="1.35.0")
    node.program(service).expect(Expectation(programming="programmed"))
"""
SAME_PEAK = 0.03


@pytest.fixture
def measure(tell: Callable[..., Story]) -> Callable[[str], Story]:
    return lambda expectation: tell(MEASURES.replace("EXPECTATION", expectation), *OPTIONS)


def test_a_measurement_that_passes(measure: Callable[[str], Story]) -> None:
    story = measure(FITS)
    assert story.end() == pytest.ExitCode.OK, story.output
    for words in ("endpoints x kube-proxy", "1.37.2", "pass", "runs/"):
        assert words in story.output

    (result,) = load_run(story.latest)
    assert result.verdict is not None
    assert (result.stage, result.verdict.result) == ("checked", "pass")
    assert result.test_id == "test_story.py::test_story[kube_proxy-1.37.2]"
    outcome, evidence = result.outcome, result.evidence
    assert outcome is not None
    assert evidence is not None
    assert evidence.ruleset is not None
    assert evidence.ruleset.endpoints == 30
    assert evidence.exit_records_lost == 0
    loads = [end for end in evidence.exits if end.comm == "nft" and end.loads_ruleset]
    assert loads
    assert {(end.comm, end.exit_code, end.source) for end in loads} == {("nft", 0, "exit_record")}
    assert outcome.nft_bytes_peak is not None
    assert outcome.nft_bytes_peak.value <= max(end.memory_bytes_peak for end in loads)
    assert evidence.cgroup is not None
    assert 0 < evidence.cgroup.baseline.charged_bytes <= evidence.cgroup.charged_bytes_peak.value
    under_load = [sample for sample in evidence.status if sample.at_s >= evidence.workload_applied_at_s]
    assert {sample.ready for sample in under_load} == {"True"}
    assert {daemon.name for daemon in evidence.daemons} == {"containerd", "kubelet", "kube-proxy"}
    used = {component.name for component in result.environment.components}
    assert used >= {"etcd", "kube-apiserver", "kwok", "kubelet", "kube-proxy", "nft", "containerd"}
    logs = {path.name for path in story.latest.glob("*/logs/*") if path.stat().st_size}
    assert logs >= {"kube-proxy.log", "kubelet.log", "containerd.log", "kube-proxy.yaml"}
    assert list(story.latest.glob("control-plane/*.log"))


def test_a_measurement_that_fails(measure: Callable[[str], Story]) -> None:
    story = measure(TOO_MUCH)
    assert story.end() == pytest.ExitCode.TESTS_FAILED, story.output
    failure = story.output.partition("= FAILURES =")[2].partition("endpoints x kube-proxy")[0]
    assert "fail: 30 endpoints, kube-proxy 1.37.2" in failure
    assert "expected nft's peak below 1.0 MiB" in failure
    assert "see it again" in failure
    assert "pytest 'test_story.py::test_story[kube_proxy-1.37.2]'" in failure
    assert "fail" in story.output.partition("endpoints x kube-proxy")[2]
    (result,) = load_run(story.latest)
    assert result.verdict is not None
    assert result.verdict.result == "fail"
    assert result.verdict.reasons


def test_a_node_pays_the_same_in_every_mode(tell: Callable[..., Story]) -> None:
    story = tell(IN_EVERY_MODE, "--max-nodes=1k")
    assert story.end() == pytest.ExitCode.OK, story.output
    outcomes = {
        result.outcome.endpoint_mode: result.outcome for result in load_run(story.latest) if result.outcome
    }
    peaks = {mode: outcome.nft_bytes_peak for mode, outcome in outcomes.items()}
    assert set(peaks) == {"native", "adopted", "endpointslices"}
    values = [peak.value for peak in peaks.values() if peak is not None]
    assert len(values) == len(peaks)
    assert max(values) <= (1 + SAME_PEAK) * min(values), peaks
    rulesets = {
        (found.chains, found.rules, found.endpoints) for o in outcomes.values() if (found := o.ruleset)
    }
    assert len(rulesets) == 1


def test_measuring_is_refused_under_xdist(
    tell: Callable[..., Story], runs_now: Callable[[], frozenset[str]]
) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is not installed; remedy: pip install pytest-xdist")
    runs = runs_now()
    story = tell("def test_story(lab): pass", "-n", "2")
    assert story.end() == pytest.ExitCode.TESTS_FAILED, story.output
    assert "kilonode doesn't measure under xdist" in story.output
    assert not (story.folder / "runs").exists()
    assert runs_now() == runs
