"""Whose memory it was: layers that add up to what the cgroup counted, whatever the looks saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_analysis_outcomes import (
    a_cgroup,
    a_failed_sync,
    a_killed_evidence,
    a_sync,
    an_evidence,
    an_oom_kill,
)

from framework.outcome import CgroupSample, DaemonRecord, Evidence, PodRecord, ProcessTrack
from framework.page import LAYERS, Timeline, timeline
from framework.page.timeline import BALLAST, KERNEL, LOOK_LASTS_S, OTHER, PAGE_CACHE, POINTS_MAX
from framework.report import load_run
from framework.units import MIB


def a_sample(at_s: float, anonymous_mib: int = 400, **changes: int) -> CgroupSample:
    parts = {"file_bytes": 50 * MIB, "kernel_bytes": 20 * MIB} | changes
    held = anonymous_mib * MIB
    return CgroupSample(at_s=at_s, anonymous_bytes=held, charged_bytes=held + sum(parts.values()), **parts)


def a_track(comm: str, mib: int, at_s: Sequence[float], pid: int = 700) -> ProcessTrack:
    return ProcessTrack(pid=pid, comm=comm, at_s=tuple(at_s), anonymous_bytes=(mib * MIB,) * len(at_s))


def looks(begin_s: float, end_s: float, interval_s: float = 0.1) -> list[float]:
    return [begin_s + n * interval_s for n in range(round((end_s - begin_s) / interval_s) + 1)]


def a_daemon(name: str, pid: int, **changes: Any) -> DaemonRecord:
    return DaemonRecord(
        name=name, pid=pid, exit_code=None, memory_bytes_peak=None, oom_score_adj=0, **changes
    )


def a_sampled_evidence(samples: Sequence[CgroupSample], *tracks: ProcessTrack, **changes: Any) -> Evidence:
    return an_evidence(cgroup=a_cgroup(samples=tuple(samples)), tracks=tracks, **changes)


def drawn(evidence: Evidence) -> Timeline:
    found = timeline(evidence)
    assert found is not None
    return found


def layers_mib(evidence: Evidence, index: int = -1) -> dict[str, float]:
    """What each layer held at one of the moments, 0 left out."""
    amounts = {name: held[index] / MIB for name, held in drawn(evidence).layers.items()}
    return {name: amount for name, amount in amounts.items() if amount}


class TestLayers:
    def test_are_named_by_the_looks_and_the_rest_is_other(self) -> None:
        evidence = a_sampled_evidence(
            [a_sample(12), a_sample(12.05)],
            a_track("nft", 111, looks(11.8, 12)),
            a_track("kubelet", 70, looks(11.8, 12), pid=610),
            a_track("containerd-shim", 12, looks(11.8, 12), pid=620),
            a_track("sleep", 5, looks(11.8, 12), pid=630),
        )
        assert layers_mib(evidence) == {
            KERNEL: 20,
            "containerd": 12,
            "kubelet": 70,
            "nft": 111,
            OTHER: 400 - 12 - 70 - 111,
            PAGE_CACHE: 50,
        }
        assert list(drawn(evidence).layers) == [name for name in LAYERS if name in layers_mib(evidence)]

    def test_several_of_one_kind_are_one(self) -> None:
        both = [a_track("nft", 100, looks(11.8, 12), pid=pid) for pid in (700, 701)]
        assert layers_mib(a_sampled_evidence([a_sample(12), a_sample(12.05)], *both))["nft"] == 200

    def test_a_process_that_lived_between_two_looks_is_other(self) -> None:
        evidence = a_sampled_evidence(
            [a_sample(12, 100), a_sample(12.05, 500)], a_track("kubelet", 100, looks(11.8, 12))
        )
        assert layers_mib(evidence, 0) == {KERNEL: 20, "kubelet": 100, PAGE_CACHE: 50}
        assert layers_mib(evidence, 1) == {KERNEL: 20, "kubelet": 100, OTHER: 400, PAGE_CACHE: 50}

    def test_a_process_is_gone_when_looks_miss_it(self) -> None:
        evidence = a_sampled_evidence(
            [a_sample(11.9), a_sample(12 + LOOK_LASTS_S - 0.05), a_sample(12 + LOOK_LASTS_S + 0.05)],
            a_track("nft", 111, looks(11.0, 12.0)),
            a_track("kubelet", 70, looks(11.0, 13.0), pid=610),
        )
        assert drawn(evidence).layers["nft"] == (111 * MIB, 111 * MIB, 0)

    def test_looks_of_a_series_that_was_thinned_out_last_longer(self) -> None:
        evidence = a_sampled_evidence(
            [a_sample(at_s) for at_s in looks(10, 30, 0.2)], a_track("nft", 111, looks(10, 30, 0.8))
        )
        assert set(drawn(evidence).layers["nft"]) == {111 * MIB}

    def test_looks_that_saw_more_than_was_counted_are_cut_and_the_small_keep_theirs(self) -> None:
        evidence = a_sampled_evidence(
            [a_sample(12, 100), a_sample(12.05, 100)],
            a_track("nft", 111, looks(11.8, 12)),
            a_track("kubelet", 70, looks(11.8, 12), pid=610),
        )
        assert layers_mib(evidence) == {KERNEL: 20, "kubelet": 70, "nft": 30, PAGE_CACHE: 50}

    def test_ballast_and_pods_are_one_layer(self) -> None:
        pod = PodRecord(
            name="guaranteed-app-1",
            qos="Guaranteed",
            phase="Running",
            state=None,
            last_end=None,
            restarts=0,
            oom_score_adj=None,
        )
        evidence = a_sampled_evidence(
            [a_sample(12), a_sample(12.05)],
            a_track("journal", 30, looks(11.8, 12), pid=640),
            a_track("guaranteed-app-", 60, looks(11.8, 12), pid=650),
            a_track("stranger", 7, looks(11.8, 12), pid=660),
            daemons=(a_daemon("journal", 640, role="ballast"),),
            pods=(pod,),
        )
        found = layers_mib(evidence)
        assert (found[BALLAST], found[OTHER]) == (90, 310)


class TestThinning:
    def test_keeps_the_peak_and_the_span(self) -> None:
        samples = [a_sample(at_s) for at_s in looks(8, 108, 0.02)]
        samples[1234] = a_sample(samples[1234].at_s, 1900)
        found = drawn(a_sampled_evidence(samples))
        assert len(found.at_s) <= POINTS_MAX
        assert list(found.at_s) == sorted(found.at_s)
        assert max(found.layers[OTHER]) == 1900 * MIB
        assert found.at_s[0] == pytest.approx(-2, abs=0.5)
        assert found.at_s[-1] == pytest.approx(98, abs=0.5)

    def test_leaves_a_short_series_as_it_is(self) -> None:
        samples = [a_sample(at_s) for at_s in looks(8, 9, 0.02)]
        assert len(drawn(a_sampled_evidence(samples)).at_s) == len(samples)


class TestMarks:
    samples = (a_sample(9), a_sample(50))

    def test_times_are_from_the_phases_beginning_on(self) -> None:
        found = drawn(a_sampled_evidence(self.samples))
        assert (found.at_s, found.programmed_at_s) == ((-1, 40), 6)
        assert drawn(a_sampled_evidence(self.samples, programmed_at_s=None)).programmed_at_s is None

    def test_syncs_that_programmed_something_or_failed(self) -> None:
        syncs = (
            a_sync(started_at_s=1.0, ended_at_s=1.1, endpoints=None),
            a_sync(started_at_s=11.0, ended_at_s=15.4),
            a_failed_sync(20, endpoints=None),
            a_sync(started_at_s=48.0, ended_at_s=None),
        )
        found = drawn(a_sampled_evidence(self.samples, syncs=syncs, ended_at_s=50.0))
        assert [(mark.start_s, round(mark.end_s, 3), mark.failed) for mark in found.syncs] == [
            (1, 5.4, False),
            (10, 13, True),
            (38, 40, False),
        ]

    def test_kills_have_the_name_that_the_node_gave_their_victims(self) -> None:
        kills = (an_oom_kill(100), an_oom_kill(50, victim_pid=640, victim_comm="python3", at_s=30.0))
        evidence = a_killed_evidence(
            cgroup=a_cgroup(samples=self.samples),
            oom_kills=kills,
            daemons=(a_daemon("journal", 640, role="ballast"),),
        )
        found = drawn(evidence)
        assert [(round(mark.at_s, 3), mark.victim, mark.memory_bytes) for mark in found.kills] == [
            (3.9, "nft", 100 * MIB),
            (20, "journal", 50 * MIB),
        ]


class TestNone:
    @pytest.mark.parametrize(
        "cgroup",
        [
            None,
            a_cgroup(samples=()),
            a_cgroup(samples=(a_sample(9),)),
            a_cgroup(samples=(a_sample(9), a_sample(9))),
            a_cgroup(samples=tuple(a_sample(at_s, 0, file_bytes=0, kernel_bytes=0) for at_s in (9, 10))),
        ],
        ids=["no cgroup", "no sample", "one sample", "one moment", "nothing held"],
    )
    def test_where_there_is_nothing_to_stack(self, cgroup: Any) -> None:
        assert timeline(an_evidence(cgroup=cgroup)) is None


def test_evidence_without_looks_has_its_anonymous_memory_under_other() -> None:
    """A real one of an older kilonode, in whose first two samples nothing had started."""
    (result,) = load_run(Path(__file__).parent / "recorded" / "run-format-1")
    assert result.evidence is not None
    found = drawn(result.evidence)
    assert found.layers == {
        KERNEL: (0, 0, 217_088),
        OTHER: (0, 0, 118_784),
        PAGE_CACHE: (0, 0, 25_550_848),
    }


moments = st.integers(0, 400).map(lambda n: n * 0.05)
sizes = st.integers(0, 2**41)
samples_taken = st.lists(
    st.builds(
        CgroupSample,
        at_s=moments,
        charged_bytes=sizes,
        anonymous_bytes=sizes,
        file_bytes=sizes,
        kernel_bytes=sizes,
    ),
    min_size=2,
    max_size=12,
    unique_by=lambda sample: sample.at_s,
).map(lambda found: sorted(found, key=lambda sample: sample.at_s))
tracks_seen = st.lists(
    st.lists(st.tuples(moments, sizes), min_size=1, max_size=5, unique_by=lambda look: look[0]).flatmap(
        lambda seen: st.builds(
            ProcessTrack,
            pid=st.integers(600, 605),
            comm=st.sampled_from(["nft", "kubelet", "containerd-shim", "journal", "sleep", ""]),
            at_s=st.just(tuple(at_s for at_s, _ in sorted(seen))),
            anonymous_bytes=st.just(tuple(held for _, held in sorted(seen))),
        )
    ),
    max_size=4,
)


@settings(deadline=None)
@given(samples_taken, tracks_seen)
def test_layers_add_up_to_what_the_cgroup_counted(
    samples: list[CgroupSample], tracks: list[ProcessTrack]
) -> None:
    counted = {
        sample.at_s: sample.anonymous_bytes + sample.file_bytes + sample.kernel_bytes for sample in samples
    }
    daemons = (a_daemon("journal", 603, role="ballast"),)
    found = timeline(a_sampled_evidence(samples, *tracks, workload_applied_at_s=0.0, daemons=daemons))
    if found is None:
        assert not any(counted.values())
        return
    stacked = [sum(amounts) for amounts in zip(*found.layers.values(), strict=True)]
    assert stacked == [counted[at_s] for at_s in found.at_s]
    assert all(amount >= 0 for amounts in found.layers.values() for amount in amounts)
