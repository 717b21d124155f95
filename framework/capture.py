"""The observers of one real node, and the evidence that they hold of a stretch of its life.

All observers run from before the node's first process until after its last. A measurement is a *window* of
that time: what the records say from its beginning on, in the node's own clock. The first window begins with
the node; a later one begins where its phase did, with the kernel's high-water marks set back, so that each
phase has peaks of its own.
"""

from __future__ import annotations

import resource
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from framework.analysis import TRAFFIC_BEFORE_S
from framework.cgroup import MemoryCgroup
from framework.cgroup_counters import CgroupReading
from framework.errors import TimeLimitError
from framework.observe import (
    CgroupSampler,
    ContainerText,
    FileText,
    KernelLog,
    NodeStatusWatcher,
    PolledText,
    ProcessSampler,
    ProxyLog,
    Recorder,
    RemoteProcesses,
    joined,
    open_recorder,
    parse_metrics,
    remote_kills,
    zero_in_local_time,
)
from framework.outcome import (
    CgroupEvidence,
    CgroupSample,
    Connect,
    Disturbance,
    Evidence,
    Measure,
    MeasuredBy,
    NodeStatusSample,
    OomKill,
    Phase,
    ProcessExit,
    Programmed,
    ProxySync,
    Ruleset,
    Unseen,
)
from framework.realnode import ContainerLogs, Node, PodLog
from framework.remote import Remote
from framework.wait import wait_until

DYING_TIMEOUT_S: Final = 10.0
"""What has no exit record then is called unknown, as before."""
DYING_LOOK_S: Final = 0.05


@dataclass(frozen=True)
class Clock:
    """The run's clock: CLOCK_BOOTTIME less its zero, which ``zero_utc`` gives as wall-clock time."""

    zero_s: float
    zero_utc: datetime

    @classmethod
    def start(cls) -> Clock:
        return cls(time.clock_gettime(time.CLOCK_BOOTTIME), datetime.now(UTC))

    def now_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.zero_s


@dataclass(frozen=True, kw_only=True)
class Window:
    """A measurement's stretch of time; ``peaks_are_its_own`` where the high-water marks were set back."""

    phase: Phase
    begun_at_s: float
    is_first: bool
    peaks_are_its_own: bool
    oom_kills_before: int


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The moments of a measurement, and what was asked and found at its end."""

    applied_at_s: float
    last_changed_at_s: float
    programmed_at_s: float | None
    settled_at_s: float
    ruleset: Ruleset | None
    endpoint_mode: str
    endpoints_expected: int
    addresses_expected: int
    addresses_gone: tuple[str, ...]
    expected: Programmed
    shape: str
    connects: tuple[Connect, ...]
    node_monitor_grace_period_s: float | None
    disturbances: tuple[Disturbance, ...]


@dataclass(frozen=True)
class _Here:
    """What the kernel tells of a node whose processes are this host's."""

    cgroup: MemoryCgroup
    recorder: Recorder
    kernel_log: KernelLog
    sampler: CgroupSampler
    processes: ProcessSampler

    @property
    def measured_by(self) -> MeasuredBy:
        return self.recorder.measured_by

    @property
    def lost(self) -> int:
        return self.recorder.lost

    @property
    def cpu_s(self) -> float:
        """What sampling cost so far."""
        return self.sampler.cpu_s + self.processes.cpu_s

    def kernel_lines(self, since_s: float) -> tuple[str, ...]:
        """What the kernel logged from ``since_s`` on, each line with its moment on the run's clock."""
        lines = ((line.monotonic_s + self.kernel_log.offset_s, line.text) for line in self.kernel_log.lines)
        return tuple(f"[{at_s:12.6f}] {text}" for at_s, text in lines if at_s >= since_s)

    def records(self) -> tuple[tuple[ProcessExit, ...], tuple[OomKill, ...]]:
        """Whom the kernel killed is waited for: to give back its memory may take it seconds."""
        with suppress(TimeLimitError):
            wait_until(
                lambda: not self._dying() or None,
                what="the end of what the kernel killed",
                timeout_s=DYING_TIMEOUT_S,
                interval_s=DYING_LOOK_S,
            )
        return self.recorder.exits(self.cgroup), self.kernel_log.kills(self.cgroup)

    def _dying(self) -> set[int]:
        """The processes that were killed and have no exit record yet."""
        ended = {end.pid for end in self.recorder.exits(self.cgroup)}
        return {kill.victim_pid for kill in self.kernel_log.kills(self.cgroup)} - ended


@dataclass(frozen=True)
class _There:
    """What a command prefix tells of a node elsewhere."""

    remote: Remote
    processes: RemoteProcesses
    zero_s: float
    sees_kills: bool

    @property
    def measured_by(self) -> MeasuredBy:
        return "poll"

    @property
    def lost(self) -> int:
        return self.processes.lost

    def records(self) -> tuple[tuple[ProcessExit, ...], tuple[OomKill, ...]]:
        kills = remote_kills(self.remote, self.zero_s) if self.sees_kills else ()
        return joined(self.processes.exits(), kills), kills


class Observers:
    """Everything that watches one node; ``stop`` ends it."""

    def __init__(self, host: Node, clock: Clock) -> None:
        self._host = host
        self._clock = clock
        self._stack = ExitStack()
        enter = self._stack.enter_context
        self._here: _Here | None = None
        if host.cgroup is not None:
            recorder: Recorder = enter(open_recorder(clock.zero_s))
            recorder.watch(host.cgroup)
            kernel_log = enter(KernelLog(clock.zero_s))
            sampler = enter(CgroupSampler(host.cgroup, clock.zero_s))
            processes = enter(ProcessSampler(host.cgroup, clock.zero_s))
            self._here = _Here(host.cgroup, recorder, kernel_log, sampler, processes)
        self._unseen = host.unseen
        self._there: _There | None = None
        if host.remote is not None and self.sees("exits"):
            there = enter(RemoteProcesses(host.remote, clock.zero_s))
            self._there = _There(host.remote, there, clock.zero_s, self.sees("kills"))
        self._status = enter(NodeStatusWatcher(host.endpoint, host.name, clock.zero_s))
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._proxy_log = _proxy_log(host.kube_proxy_log, zero_in_local_time(clock.zero_s, now_s))
        self._baseline: CgroupSample | None = None
        self._before: CgroupReading | None = None
        self._windows = 0

    def stop(self) -> None:
        self._stack.close()

    @property
    def syncs(self) -> tuple[ProxySync, ...]:
        """Every sync of kube-proxy so far."""
        return self._proxy_log.syncs() if self._proxy_log is not None and self.sees("syncs") else ()

    def sees(self, what: Unseen) -> bool:
        """Whether such records can be taken of the node."""
        return all(each.what != what for each in self._unseen)

    @property
    def last_look(self) -> NodeStatusSample | None:
        samples = self._status.samples
        return samples[-1] if samples else None

    def take_baseline(self) -> None:
        """The node is idle now: what it holds is what it costs without the Service."""
        reading = self._host.counters()
        self._baseline = None if reading is None else self._sample(reading)

    def begin(self, phase: Phase) -> Window:
        """A new window, from now on; the first one from the node's beginning on."""
        is_first = self._windows == 0 and self._host.is_ours
        self._windows += 1
        own = is_first or (self._host.is_ours and self._here is not None and self._here.cgroup.reset_peaks())
        self._before = None if is_first else self._host.counters()
        return Window(
            phase=phase,
            begun_at_s=0.0 if is_first else self._clock.now_s(),
            is_first=is_first,
            peaks_are_its_own=own,
            oom_kills_before=self._before.oom_kills if self._before is not None else 0,
        )

    def evidence(self, window: Window, marks: Marks) -> Evidence:
        """What was recorded in ``window``, until now."""
        begun_at_s = window.begun_at_s
        kernel = self._here or self._there
        exits, kills = kernel.records() if kernel is not None else ((), ())
        exits = tuple(end for end in exits if end.at_s >= begun_at_s)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return Evidence(
            zero_utc=self._clock.zero_utc.isoformat(),
            node=self._host.name,
            kube_proxy=self._host.spec.kube_proxy,
            endpoints_expected=marks.endpoints_expected,
            endpoint_mode=marks.endpoint_mode,
            workload_applied_at_s=marks.applied_at_s,
            last_changed_at_s=marks.last_changed_at_s,
            programmed_at_s=marks.programmed_at_s,
            ended_at_s=self._clock.now_s(),
            exits=exits,
            exit_records_lost=kernel.lost if kernel is not None else 0,
            measured_by=kernel.measured_by if kernel is not None else "nothing",
            oom_kills=tuple(kill for kill in kills if kill.at_s >= begun_at_s),
            cgroup=self._cgroup(window),
            syncs=tuple(s for s in self.syncs if s.ended_at_s is None or s.ended_at_s >= begun_at_s),
            sync_failures_metric=self._sync_failures(),
            status=tuple(look for look in self._status.samples if look.at_s >= begun_at_s),
            ruleset=marks.ruleset,
            daemons=self._host.daemon_records(exits),
            pods=self._host.pod_records(),
            harness_memory_bytes_peak=usage.ru_maxrss * 1024,
            harness_cpu_s=self._status.cpu_s + (self._here.cpu_s if self._here else 0.0),
            phase=window.phase,
            begun_at_s=begun_at_s,
            settled_at_s=marks.settled_at_s,
            addresses_expected=marks.addresses_expected,
            connects=tuple(c for c in marks.connects if c.at_s >= marks.applied_at_s - TRAFFIC_BEFORE_S),
            addresses_gone=marks.addresses_gone,
            oom_scores=self._host.oom_scores,
            restarts=tuple(
                end for end in self._host.restarts(self._clock.zero_s, exits) if end.ended_at_s >= begun_at_s
            ),
            node_monitor_grace_period_s=marks.node_monitor_grace_period_s,
            expected=marks.expected,
            shape=marks.shape,
            loader=self._host.spec.loader,
            unseen=self._unseen,
            tracks=self._here.processes.tracks(begun_at_s) if self._here else (),
            disturbances=marks.disturbances,
        )

    def kernel_lines(self, window: Window) -> tuple[str, ...]:
        """What this machine's kernel logged in ``window``; none for a node elsewhere."""
        return self._here.kernel_lines(window.begun_at_s) if self._here is not None else ()

    def _cgroup(self, window: Window) -> CgroupEvidence | None:
        reading, sampler = self._host.counters(), self._here.sampler if self._here is not None else None
        if reading is None:
            return None
        end = sampler.sample() if sampler is not None else self._sample(reading)
        samples = tuple(s for s in (sampler.samples if sampler else ()) if s.at_s >= window.begun_at_s)
        charged, kernel = reading.charged_bytes_peak, reading.kernel_bytes_peak
        of_window = [*samples, end]
        if not window.peaks_are_its_own:
            before = self._before
            charged = raised(before.charged_bytes_peak if before else None, charged)
            kernel = raised(before.kernel_bytes_peak if before else None, kernel)
        first_sampler = sampler if window.is_first else None
        return CgroupEvidence(
            mode=reading.mode,
            limit_bytes=self._host.spec.memory_bytes,
            charged_bytes_peak=_peak(charged, max(each.charged_bytes for each in of_window)),
            unreclaimable_bytes_peak=first_sampler.unreclaimable_bytes_peak
            if first_sampler is not None
            else _peak(None, max(each.anonymous_bytes + each.kernel_bytes for each in of_window)),
            kernel_bytes_peak=first_sampler.kernel_bytes_peak
            if first_sampler is not None and kernel is None
            else _peak(kernel, max(each.kernel_bytes for each in of_window)),
            baseline=self._baseline or end,
            end=end,
            oom_kills=max(0, reading.oom_kills - window.oom_kills_before),
            samples=samples,
            sample_interval_s=sampler.interval_s if sampler is not None else 0.0,
        )

    def _sample(self, reading: CgroupReading) -> CgroupSample:
        """A reading as a sample of this moment."""
        return CgroupSample(
            at_s=self._clock.now_s(),
            charged_bytes=reading.charged_bytes,
            anonymous_bytes=reading.anonymous_bytes,
            file_bytes=reading.file_bytes,
            kernel_bytes=reading.kernel_bytes,
        )

    def _sync_failures(self) -> int | None:
        """kube-proxy's own count of failed syncs; None when it doesn't answer."""
        try:
            return parse_metrics(self._host.kube_proxy_metrics()).sync_failures
        except OSError:
            return None


def _peak(counter: int | None, largest_sample: int) -> Measure:
    """The kernel's high-water mark or, without one, the largest sample: a lower bound."""
    if counter is not None:
        return Measure(value=counter, source="cgroup_counter", bound="exact")
    return Measure(value=largest_sample, source="sample", bound="lower")


def raised(before: int | None, after: int | None) -> int | None:
    """A high-water mark that nobody set back, where it is a window's own: it rose in it."""
    return after if before is not None and after is not None and after > before else None


def _proxy_log(place: Path | ContainerLogs | PodLog | None, zero: datetime) -> ProxyLog | None:
    """``zero`` in this machine's time zone."""
    if place is None:
        return None
    if isinstance(place, PodLog):
        return ProxyLog(PolledText(place.read_since), zero.astimezone(UTC))
    if isinstance(place, ContainerLogs):
        return ProxyLog(ContainerText(place.folder, place.pattern), zero.astimezone(UTC))
    return ProxyLog(FileText(place), zero)
