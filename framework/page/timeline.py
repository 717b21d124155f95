"""Whose memory it was, moment by moment: one evidence as layers that can be stacked.

The cgroup's samples say how much is anonymous, page cache and kernel memory, 50 times a second; the looks at
the processes say whose the anonymous memory is, ten times a second. A layer is a process, or several of one
kind, as long as a look saw it; what no look explains stays "other". So the layers always add up to what the
cgroup counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from framework.outcome import CgroupSample, Evidence, ProcessTrack

POINTS_MAX: Final = 400
"""More can't be told apart at a page's width."""
LOOK_LASTS_S: Final = 0.25
"""Looks are a tenth of a second apart: a process that was not seen for longer is gone."""
LOOK_LASTS_LOOKS: Final = 2.5
"""The same where they are further apart, as in a long series that was thinned out."""
OTHER: Final = "other processes"
PAGE_CACHE: Final = "page cache"
KERNEL: Final = "kernel"
BALLAST: Final = "ballast"
DAEMONS: Final = ("containerd", "kubelet", "kube-proxy", "nft")
LAYERS: Final = (KERNEL, *DAEMONS, BALLAST, OTHER, PAGE_CACHE)
"""From the bottom to the top; what can't be reclaimed lies below what can."""


@dataclass(frozen=True, kw_only=True)
class SyncMark:
    """One sync of kube-proxy; ``end_s`` is that of the evidence where it had not ended."""

    start_s: float
    end_s: float
    failed: bool


@dataclass(frozen=True, kw_only=True)
class KillMark:
    """One OOM kill."""

    at_s: float
    victim: str
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """``layers`` are bytes at each of the moments ``at_s``, in the order of ``LAYERS``; times are from the
    phase's beginning on, which is 0."""

    at_s: tuple[float, ...]
    layers: Mapping[str, tuple[int, ...]]
    limit_bytes: int
    syncs: tuple[SyncMark, ...]
    kills: tuple[KillMark, ...]
    programmed_at_s: float | None


def timeline(evidence: Evidence) -> Timeline | None:
    """The layers of one measurement; None where the cgroup was not sampled, or only once, or held nothing."""
    cgroup = evidence.cgroup
    if cgroup is None or len({sample.at_s for sample in cgroup.samples}) < 2:
        return None
    zero_s = evidence.workload_applied_at_s
    samples = _thinned(cgroup.samples)
    held = _held(evidence)
    layers: dict[str, list[int]] = {name: [] for name in LAYERS}
    for sample in samples:
        for name, amount in _stacked(sample, held).items():
            layers[name].append(amount)
    shown = {name: tuple(amounts) for name, amounts in layers.items() if any(amounts)}
    if not shown:
        return None
    names = {daemon.pid: daemon.name for daemon in evidence.daemons}
    return Timeline(
        at_s=tuple(sample.at_s - zero_s for sample in samples),
        layers=shown,
        limit_bytes=cgroup.limit_bytes,
        syncs=tuple(
            SyncMark(
                start_s=sync.started_at_s - zero_s,
                end_s=(sync.ended_at_s if sync.ended_at_s is not None else evidence.ended_at_s) - zero_s,
                failed=sync.error is not None,
            )
            for sync in evidence.syncs
            if sync.endpoints or sync.error is not None
        ),
        kills=tuple(
            KillMark(
                at_s=kill.at_s - zero_s,
                victim=names.get(kill.victim_pid, kill.victim_comm),
                memory_bytes=kill.memory_bytes_anon + kill.memory_bytes_file + kill.memory_bytes_shmem,
            )
            for kill in evidence.oom_kills
        ),
        programmed_at_s=None if evidence.programmed_at_s is None else evidence.programmed_at_s - zero_s,
    )


def _thinned(samples: Sequence[CgroupSample]) -> list[CgroupSample]:
    """At most ``POINTS_MAX``, of each stretch of time the sample that held most, so that no peak is lost."""
    size = -(-len(samples) // POINTS_MAX)
    groups = (samples[start : start + size] for start in range(0, len(samples), size))
    return [max(group, key=lambda each: each.charged_bytes) for group in groups]


@dataclass(frozen=True)
class _Held:
    """One process's looks, for questions about a moment."""

    layer: str
    track: ProcessTrack
    lasts_s: float

    def at(self, at_s: float) -> int:
        """The last look's figure, 0 where that is too long ago."""
        index = bisect_right(self.track.at_s, at_s) - 1
        if index < 0 or at_s - self.track.at_s[index] > self.lasts_s:
            return 0
        return self.track.anonymous_bytes[index]


def _held(evidence: Evidence) -> list[_Held]:
    names = {daemon.pid: daemon for daemon in evidence.daemons}
    pods = {pod.name[:15] for pod in evidence.pods}
    lasts_s = _look_lasts_s(evidence.tracks)
    found = []
    for track in evidence.tracks:
        daemon = names.get(track.pid)
        if (daemon is not None and daemon.role == "ballast") or track.comm in pods:
            layer = BALLAST
        else:
            layer = next((name for name in DAEMONS if track.comm.startswith(name)), OTHER)
        found.append(_Held(layer, track, lasts_s))
    return found


def _look_lasts_s(tracks: Sequence[ProcessTrack]) -> float:
    moments = sorted({at_s for track in tracks for at_s in track.at_s})
    apart_s = [after - before for before, after in pairwise(moments)]
    return max(LOOK_LASTS_S, LOOK_LASTS_LOOKS * median(apart_s)) if apart_s else LOOK_LASTS_S


def _stacked(sample: CgroupSample, held: Sequence[_Held]) -> Mapping[str, int]:
    """The sample's parts by layer. What looks saw beyond what was counted is cut off, largest first last."""
    amounts: defaultdict[str, int] = defaultdict(int)
    for each in held:
        amounts[each.layer] += each.at(sample.at_s)
    amounts.pop(OTHER, None)
    left = sample.anonymous_bytes
    parts = {KERNEL: sample.kernel_bytes, PAGE_CACHE: sample.file_bytes}
    for name in sorted(amounts, key=lambda name: amounts[name]):
        parts[name] = min(left, amounts[name])
        left -= parts[name]
    return {name: parts.get(name, left if name == OTHER else 0) for name in LAYERS}
