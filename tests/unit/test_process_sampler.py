"""Whose memory it is over time: every process of a cgroup, by pid and name, at moments."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from test_observe_threads import eventually

from framework.cgroup import MemoryCgroup
from framework.observe.process_sampler import ProcessSampler
from framework.observe.recorder import ProcReader
from framework.outcome import ProcessTrack

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Machine:
    """A cgroup and a /proc in folders, whose processes come, grow and go."""

    folder: Path
    pids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "cgroup").mkdir()
        self._list()

    def sampler(self, *, zero_s: float = 0.0, looks_max: int = 20_000) -> ProcessSampler:
        cgroup = MemoryCgroup(self.folder / "cgroup", "v2", self.folder)
        proc = ProcReader(self.folder)
        return ProcessSampler(cgroup, zero_s, interval_s=0.002, looks_max=looks_max, proc=proc)

    def runs(self, pid: int, comm: str, pages: int) -> None:
        """With ``pages`` that are its own, and 20 of files."""
        (self.folder / str(pid)).mkdir(exist_ok=True)
        self._put(f"{pid}/statm", f"900 {pages + 20} 20 5 0 60 0\n")
        self._put(f"{pid}/comm", f"{comm}\n")
        if pid not in self.pids:
            self.pids.append(pid)
            self._list()

    def ends(self, pid: int) -> None:
        """Its pid may be listed a moment longer."""
        for name in ("statm", "comm"):
            (self.folder / str(pid) / name).unlink()

    def leaves(self, pid: int) -> None:
        self.pids.remove(pid)
        self._list()

    def _list(self) -> None:
        self._put("cgroup/cgroup.procs", "".join(f"{pid}\n" for pid in self.pids))

    def _put(self, name: str, text: str) -> None:
        beside = self.folder / "beside"
        beside.write_text(text)
        beside.replace(self.folder / name)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def track_of(
    sampler: ProcessSampler, pid: int, comm: str = "nft", since_s: float = 0.0
) -> ProcessTrack | None:
    found = [track for track in sampler.tracks(since_s) if (track.pid, track.comm) == (pid, comm)]
    assert len(found) <= 1
    return found[0] if found else None


def looks_at(sampler: ProcessSampler, pid: int, comm: str = "nft", pages: int | None = None) -> int:
    """How often it was seen, holding ``pages``."""
    track = track_of(sampler, pid, comm)
    if track is None:
        return 0
    return sum(pages is None or held == pages * PAGE_BYTES for held in track.anonymous_bytes)


def test_a_process_that_grows_has_one_track_without_the_pages_of_files(machine: Machine) -> None:
    zero_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    machine.runs(41, "nft", 100)
    with machine.sampler(zero_s=zero_s) as sampler:
        eventually(lambda: looks_at(sampler, 41, pages=100) > 1)
        machine.runs(41, "nft", 300)
        eventually(lambda: looks_at(sampler, 41, pages=300) > 1)
    ended_s = time.clock_gettime(time.CLOCK_BOOTTIME) - zero_s
    (track,) = sampler.tracks(0.0)
    assert list(track.anonymous_bytes) == sorted(track.anonymous_bytes)
    assert set(track.anonymous_bytes) == {100 * PAGE_BYTES, 300 * PAGE_BYTES}
    assert list(track.at_s) == sorted(track.at_s)
    assert 0 <= track.at_s[0] <= track.at_s[-1] <= ended_s + 0.001
    assert sampler.cpu_s > 0


def test_a_process_that_becomes_another_program_has_a_track_for_each(machine: Machine) -> None:
    machine.runs(41, "sh", 10)
    with machine.sampler() as sampler:
        eventually(lambda: looks_at(sampler, 41, "sh") > 0)
        machine.runs(41, "nft", 100)
        eventually(lambda: looks_at(sampler, 41, "nft", pages=100) > 0)
    before, after = sampler.tracks(0.0)
    assert (before.comm, after.comm) == ("sh", "nft")
    assert before.at_s[-1] <= after.at_s[0]


def test_processes_come_and_go_while_others_stay(machine: Machine) -> None:
    machine.runs(610, "kubelet", 50)
    with machine.sampler() as sampler:
        eventually(lambda: looks_at(sampler, 610, "kubelet") > 0)
        machine.runs(41, "nft", 100)
        eventually(lambda: looks_at(sampler, 41) > 0)
        machine.ends(41)
        seen = looks_at(sampler, 610, "kubelet")
        eventually(lambda: looks_at(sampler, 610, "kubelet") > seen + 2)
        machine.leaves(41)
    kubelet, nft = sampler.tracks(0.0)
    assert (kubelet.comm, nft.comm) == ("kubelet", "nft")
    assert set(nft.at_s) < set(kubelet.at_s)
    assert nft.at_s[-1] < kubelet.at_s[-1]


def test_tracks_begin_where_they_are_asked_to(machine: Machine) -> None:
    machine.runs(610, "kubelet", 50)
    machine.runs(41, "nft", 100)
    with machine.sampler() as sampler:
        eventually(lambda: looks_at(sampler, 41) > 0)
        machine.leaves(41)
        seen = looks_at(sampler, 41)
        eventually(lambda: looks_at(sampler, 610, "kubelet") > seen + 2)
    gone = track_of(sampler, 41)
    assert gone is not None
    since_s = round(gone.at_s[-1] + 0.001, 3)
    (track,) = sampler.tracks(since_s)
    assert track.comm == "kubelet"
    assert track.at_s[0] >= since_s


def test_a_long_series_is_thinned_out_and_keeps_its_span(machine: Machine) -> None:
    machine.runs(41, "nft", 100)
    with machine.sampler(looks_max=8) as sampler:
        eventually(lambda: looks_at(sampler, 41) > 0)
        (first,) = sampler.tracks(0.0)
        time.sleep(0.15)
    (track,) = sampler.tracks(0.0)
    assert track.at_s[0] == first.at_s[0]
    assert len(track.at_s) < 8
    assert track.at_s[-1] - track.at_s[0] > 0.05


def test_without_processes_there_are_no_tracks(machine: Machine) -> None:
    with machine.sampler() as sampler:
        eventually(lambda: sampler.cpu_s > 0)
    assert sampler.tracks(0.0) == ()
