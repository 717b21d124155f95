"""The observers of one real node, and the evidence that they hold of a stretch of its life.

All observers run from before the node's first process until after its last. A measurement is a *window* of
that time: what the records say from its beginning on, in the node's own clock. The first window begins with
the node; a later one begins where its phase did, with the kernel's high-water marks set back, so that each
phase has peaks of its own.
"""

from __future__ import annotations

import resource
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from framework.analysis import TRAFFIC_BEFORE_S
from framework.observe import (
    CgroupSampler,
    KernelLog,
    NodeStatusWatcher,
    ProxyLog,
    Recorder,
    open_recorder,
    parse_metrics,
    zero_in_local_time,
)
from framework.outcome import (
    CgroupEvidence,
    CgroupSample,
    Connect,
    Evidence,
    Measure,
    NodeStatusSample,
    Phase,
    Programmed,
    ProxySync,
    Ruleset,
)
from framework.realnode import HostNode

METRICS_TIMEOUT_S: Final = 10.0


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
    ruleset: Ruleset
    endpoint_mode: str
    endpoints_expected: int
    addresses_expected: int
    addresses_gone: tuple[str, ...]
    expected: Programmed
    shape: str
    connects: tuple[Connect, ...]
    node_monitor_grace_period_s: float


class Observers:
    """Everything that watches one node; ``stop`` ends it."""

    def __init__(self, host: HostNode, clock: Clock) -> None:
        self._host = host
        self._clock = clock
        self._stack = ExitStack()
        enter = self._stack.enter_context
        self._recorder: Recorder = enter(open_recorder(clock.zero_s))
        self._recorder.watch(host.cgroup)
        self._kernel_log = enter(KernelLog(clock.zero_s))
        self._sampler = enter(CgroupSampler(host.cgroup, clock.zero_s))
        self._status = enter(NodeStatusWatcher(host.endpoint, host.name, clock.zero_s))
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._proxy_log = ProxyLog(host.kube_proxy_log, zero_in_local_time(clock.zero_s, now_s))
        self._baseline: CgroupSample | None = None
        self._windows = 0

    def stop(self) -> None:
        self._stack.close()

    @property
    def syncs(self) -> tuple[ProxySync, ...]:
        """Every sync of kube-proxy so far."""
        return self._proxy_log.syncs()

    @property
    def last_look(self) -> NodeStatusSample | None:
        samples = self._status.samples
        return samples[-1] if samples else None

    def take_baseline(self) -> None:
        """The node is idle now: what it holds is what it costs without the Service."""
        self._baseline = self._sampler.sample()

    def begin(self, phase: Phase) -> Window:
        """A new window, from now on; the first one from the node's beginning on."""
        is_first = self._windows == 0
        self._windows += 1
        return Window(
            phase=phase,
            begun_at_s=0.0 if is_first else self._clock.now_s(),
            is_first=is_first,
            peaks_are_its_own=is_first or self._host.cgroup.reset_peaks(),
            oom_kills_before=0 if is_first else self._host.cgroup.read().oom_kills,
        )

    def evidence(self, window: Window, marks: Marks) -> Evidence:
        """What was recorded in ``window``, until now."""
        begun_at_s = window.begun_at_s
        end = self._sampler.sample()
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
            exits=tuple(x for x in self._recorder.exits(self._host.cgroup) if x.at_s >= begun_at_s),
            exit_records_lost=self._recorder.lost,
            measured_by=self._recorder.measured_by,
            oom_kills=tuple(k for k in self._kernel_log.kills(self._host.cgroup) if k.at_s >= begun_at_s),
            cgroup=self._cgroup(window, end),
            syncs=tuple(s for s in self.syncs if s.ended_at_s is None or s.ended_at_s >= begun_at_s),
            sync_failures_metric=self._sync_failures(),
            status=tuple(look for look in self._status.samples if look.at_s >= begun_at_s),
            ruleset=marks.ruleset,
            daemons=self._host.daemon_records(),
            pods=self._host.pod_records(),
            harness_memory_bytes_peak=usage.ru_maxrss * 1024,
            harness_cpu_s=self._sampler.cpu_s + self._status.cpu_s,
            phase=window.phase,
            begun_at_s=begun_at_s,
            settled_at_s=marks.settled_at_s,
            addresses_expected=marks.addresses_expected,
            connects=tuple(c for c in marks.connects if c.at_s >= marks.applied_at_s - TRAFFIC_BEFORE_S),
            addresses_gone=marks.addresses_gone,
            oom_scores=self._host.oom_scores,
            restarts=tuple(
                end.record(self._clock.zero_s)
                for end in self._host.supervisor.ends
                if end.ended_s - self._clock.zero_s >= begun_at_s
            ),
            node_monitor_grace_period_s=marks.node_monitor_grace_period_s,
            expected=marks.expected,
            shape=marks.shape,
            loader=self._host.spec.loader,
        )

    def _cgroup(self, window: Window, end: CgroupSample) -> CgroupEvidence:
        reading = self._host.cgroup.read()
        samples = tuple(each for each in self._sampler.samples if each.at_s >= window.begun_at_s)
        of_window = [*samples, end]
        charged = reading.charged_bytes_peak if window.peaks_are_its_own else None
        kernel = reading.kernel_bytes_peak if window.peaks_are_its_own else None
        return CgroupEvidence(
            mode=self._host.cgroup.mode,
            limit_bytes=self._host.spec.memory_bytes,
            charged_bytes_peak=_peak(charged, max(each.charged_bytes for each in of_window)),
            unreclaimable_bytes_peak=self._sampler.unreclaimable_bytes_peak
            if window.is_first
            else _peak(None, max(each.anonymous_bytes + each.kernel_bytes for each in of_window)),
            kernel_bytes_peak=self._sampler.kernel_bytes_peak
            if window.is_first and kernel is None
            else _peak(kernel, max(each.kernel_bytes for each in of_window)),
            baseline=self._baseline or end,
            end=end,
            oom_kills=max(0, reading.oom_kills - window.oom_kills_before),
            samples=samples,
            sample_interval_s=self._sampler.interval_s,
        )

    def _sync_failures(self) -> int | None:
        """kube-proxy's own count of failed syncs; None when it doesn't answer."""
        try:
            with urllib.request.urlopen(self._host.metrics_url, timeout=METRICS_TIMEOUT_S) as answer:  # noqa: S310
                return parse_metrics(answer.read().decode()).sync_failures
        except OSError:
            return None


def _peak(counter: int | None, largest_sample: int) -> Measure:
    """The kernel's high-water mark or, without one, the largest sample: a lower bound."""
    if counter is not None:
        return Measure(value=counter, source="cgroup_counter", bound="exact")
    return Measure(value=largest_sample, source="sample", bound="lower")
