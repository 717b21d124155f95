"""What happens to the cluster or the machine under a measurement makes it unknown, the first cause first."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import pytest
from test_analysis_outcomes import a_killed_evidence, an_evidence, an_outcome

from framework.analysis import Expectation, derive_outcome, judge
from framework.capture import Clock
from framework.disturbances import CLUSTER_LOOK_INTERVAL_S, Disturbances
from framework.outcome import DaemonRecord, Disturbance, Restart

ZERO_S = 1000.0


@dataclass
class FakeCluster:
    """Two components that run."""

    pids: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"etcd": (10,), "kwok": (20,)})
    paused: frozenset[str] = frozenset()

    def component_pids(self) -> dict[str, tuple[int, ...]]:
        return dict(self.pids)

    def paused_components(self) -> frozenset[str]:
        return self.paused


@dataclass
class Clocks:
    """The machine's clocks; wall-clock time is ``offset_s`` ahead of the time since boot."""

    boot_s: float = ZERO_S
    offset_s: float = 1.7e9

    def read(self, clock: int) -> float:
        return self.boot_s + (self.offset_s if clock == time.CLOCK_REALTIME else 0.0)


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(time, "clock_gettime", clocks.read)
    return clocks


@pytest.fixture
def watched(cluster: FakeCluster, clocks: Clocks) -> Disturbances:
    return Disturbances(cluster, Clock(ZERO_S, datetime.now(UTC)))  # type: ignore[arg-type]


def texts(watched: Disturbances) -> list[str]:
    return [each.text for each in watched.noticed()]


class TestNoticing:
    def test_nothing(self, watched: Disturbances, clocks: Clocks) -> None:
        clocks.boot_s += 100
        clocks.offset_s += 0.01
        assert watched.look()
        assert texts(watched) == []

    def test_a_component_that_ended(
        self, watched: Disturbances, clocks: Clocks, cluster: FakeCluster
    ) -> None:
        cluster.pids["etcd"] = ()
        assert not watched.look()
        clocks.boot_s += CLUSTER_LOOK_INTERVAL_S + 0.1
        assert watched.look()
        cluster.pids["kwok"] = ()
        clocks.boot_s += 10
        (first, second) = watched.noticed()
        assert first.text == "etcd of the control plane ended"
        assert first.at_s == pytest.approx(CLUSTER_LOOK_INTERVAL_S + 0.1)
        assert second.text == "kwok of the control plane ended"

    def test_one_that_somebody_started_again(self, watched: Disturbances, cluster: FakeCluster) -> None:
        cluster.pids["kwok"] = (21,)
        assert texts(watched) == ["kwok of the control plane ended and was started again"]

    def test_one_that_stands_still(self, watched: Disturbances, cluster: FakeCluster) -> None:
        cluster.paused = frozenset({"kwok"})
        once = ["kwok of the control plane was stopped by a signal and stands still"]
        assert texts(watched) == once
        assert texts(watched) == once

    @pytest.mark.parametrize(("step_s", "words"), [(120.0, "120.0 s forward"), (-0.5, "0.5 s back")])
    def test_a_clock_that_was_set(
        self, watched: Disturbances, clocks: Clocks, step_s: float, words: str
    ) -> None:
        clocks.offset_s += step_s
        (text,) = texts(watched)
        assert text.startswith(f"the machine's clock was set {words}: ")

    def test_one_that_was_set_and_set_back(self, watched: Disturbances, clocks: Clocks) -> None:
        clocks.offset_s += 3600
        watched.look()
        clocks.offset_s -= 3600
        assert len(texts(watched)) == 2


class TestMeaning:
    DISTURBANCES = (
        Disturbance(at_s=11.0, text="etcd of the control plane ended"),
        Disturbance(at_s=14.0, text="kwok of the control plane ended"),
    )

    @pytest.mark.parametrize(
        "expectation",
        [
            Expectation(programming="programmed"),
            Expectation(programming="nft_killed"),
            Expectation(charged_bytes_below=1 << 40),
            Expectation(served="fully"),
        ],
    )
    def test_nothing_follows_from_it(self, expectation: Expectation) -> None:
        verdict = judge(an_outcome(an_evidence(disturbances=self.DISTURBANCES)), expectation)
        assert verdict.result == "unknown"
        assert verdict.reasons == tuple(each.text for each in self.DISTURBANCES)

    @pytest.mark.parametrize("exit_code", [-9, -15])
    def test_a_daemon_that_a_stranger_ended(self, exit_code: int) -> None:
        dead = DaemonRecord(
            name="containerd", pid=600, exit_code=exit_code, memory_bytes_peak=None, oom_score_adj=0
        )
        outcome = derive_outcome(an_evidence(daemons=(dead,)))
        verdict = judge(outcome, Expectation(programming="daemon_died"))
        assert verdict.result == "unknown"
        assert "containerd 600 was ended by SIG" in verdict.reasons[0]
        assert "somebody else did" in verdict.reasons[0]

    def test_one_that_was_started_again_meanwhile(self) -> None:
        end = Restart(
            name="kubelet", pid=610, exit_code=-9, ended_at_s=12.0, delay_s=10.0, restarted_at_s=None
        )
        assert derive_outcome(an_evidence(restarts=(end,))).disturbed

    def test_one_that_the_kernel_killed_or_that_crashed_is_an_outcome(self) -> None:
        killed, crashed = (
            DaemonRecord(name=name, pid=pid, exit_code=code, memory_bytes_peak=None, oom_score_adj=0)
            for name, pid, code in (("kube-proxy", 700, -9), ("kubelet", 610, -6))
        )
        evidence = a_killed_evidence(daemons=(killed, crashed))
        victim = msgspec.structs.replace(evidence.oom_kills[0], victim_pid=700, victim_comm="kube-proxy")
        evidence = msgspec.structs.replace(evidence, oom_kills=(victim,))
        assert derive_outcome(evidence).disturbed == ()
