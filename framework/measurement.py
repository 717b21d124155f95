"""One measurement: what a Service costs a real node.

The life of a measurement, in order:

1. the observers attach to the node's empty cgroup, so that nothing the node does escapes them;
2. the node boots, becomes Ready, kube-proxy makes its first sync of an empty cluster: the *baseline*;
3. the Service is applied; from here on the node pays;
4. waiting, until the ruleset holds the Service (*programmed*), or kube-proxy's failure was seen together with
   its retries, or a daemon died, or the time is up;
5. the evidence is captured, before anything is torn down, and written to the run folder;
6. the outcome is derived from the evidence alone, and checked by the scenario.
"""

from __future__ import annotations

import os
import resource
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from framework import guard
from framework.analysis import (
    Expectation,
    RunFacts,
    VerdictError,
    derive_outcome,
    deviations,
    judge,
    refusals,
)
from framework.lab import Lab
from framework.observe import (
    CgroupSampler,
    KernelLog,
    NodeStatusWatcher,
    ProxyLog,
    Recorder,
    open_recorder,
    parse_metrics,
    read_iptables,
    read_ruleset,
    zero_in_local_time,
)
from framework.outcome import (
    CgroupEvidence,
    CgroupSample,
    Doubt,
    Environment,
    Evidence,
    Measure,
    Outcome,
    Programmed,
    ProxySync,
    Ruleset,
    RunResult,
    Verdict,
)
from framework.realnode import XTABLES, HostNode
from framework.report import FORMAT, MeasurementFolder
from framework.spec import RealNodeSpec
from framework.wait import wait_until
from framework.workload import Workload, programmed

BASELINE_TIMEOUT_S: Final = 60.0
PROGRAM_TIMEOUT_S: Final = 180.0
PROGRAM_TIMEOUT_S_PER_ENDPOINT: Final = 0.005
"""kube-proxy 1.35 and nft work 40 s on 100,000 endpoints, and start over for slices that come meanwhile."""
FAILURES_WATCHED: Final = 3
"""A failed sync and two retries: enough to see that kube-proxy tries again, and how often."""
DAEMON_DEATH_WATCHED_S: Final = 5.0
STATUS_AFTER_S: Final = 2.0
"""Status is watched this much longer than the last event, so that its samples enclose it."""
PRODUCTION_OOM_SCORE_ADJ: Final = -999
"""What kubelet, kube-proxy (and so nft) and containerd have in production."""
METRICS_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1


@dataclass
class Measurement:
    """What was measured, with its place in the run folder. ``expect`` checks it."""

    result: RunResult
    folder: MeasurementFolder
    refusals: tuple[Doubt, ...]
    repro: str

    @property
    def outcome(self) -> Outcome:
        assert self.result.outcome is not None  # noqa: S101 - a Measurement is made from one
        return self.result.outcome

    @property
    def checked(self) -> bool:
        return self.result.verdict is not None

    def expect(self, expectation: Expectation) -> Verdict:
        """The verdict, written to the run folder. Raises VerdictError unless it is a pass."""
        verdict = judge(self.outcome, expectation, self.refusals)
        self.result = msgspec.structs.replace(self.result, stage="checked", verdict=verdict)
        self.folder.write(self.result)
        if verdict.result != "pass":
            raise VerdictError(verdict, self.outcome, self.repro)
        return verdict


class RealNode:
    """A real node under observation; made by ``RealNode.start``, and ended by ``stop``."""

    def __init__(self, lab: Lab, spec: RealNodeSpec, *, test_id: str, repro: str) -> None:
        self.spec = spec
        self.measurement: Measurement | None = None
        self._lab = lab
        self._test_id = test_id
        self._repro = repro
        self._zero_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._zero_utc = datetime.now(UTC)
        self._stack = ExitStack()
        self._host: HostNode
        self._recorder: Recorder
        self._sampler: CgroupSampler
        self._status: NodeStatusWatcher
        self._kernel_log: KernelLog
        self._proxy_log: ProxyLog
        self._baseline: CgroupSample

    @classmethod
    def start(cls, lab: Lab, spec: RealNodeSpec, *, test_id: str, repro: str) -> RealNode:
        """Boot a node with its observers attached; Ready, kube-proxy in sync with an idle cluster."""
        node = cls(lab, spec, test_id=test_id, repro=repro)
        try:
            lab.boot(spec, node._observe)
            node._start_kube_proxy()
        except BaseException:
            node.stop()
            raise
        return node

    @property
    def name(self) -> str:
        return self._host.name

    def program(self, service: Workload, *, timeout_s: float | None = None) -> Measurement:
        """Apply ``service`` and wait until the node is programmed, has failed, or ``timeout_s`` is over.

        By default that is three minutes, and five more for each 60,000 endpoints.
        """
        if timeout_s is None:
            more_s = PROGRAM_TIMEOUT_S_PER_ENDPOINT * service.spec.proxy_endpoints
            timeout_s = PROGRAM_TIMEOUT_S + more_s
        started = self._started(service)
        folder = self._lab.run_folder.start(started)
        with self._lab.phase("programming", f"{service.spec.endpoints:,} endpoints on {self.name}"):
            applied_at_s = service.apply() - self._zero_s
            programmed_at_s, ruleset = self._wait(service, applied_at_s, self._now_s() + timeout_s)
            time.sleep(STATUS_AFTER_S)
        with self._lab.phase("evidence", str(folder.path.name)):
            evidence = self._evidence(service, applied_at_s, programmed_at_s, ruleset)
            self._host.keep_logs(folder.logs)
        unready = self._lab.unready_fakes()
        facts = self._facts(service, started.environment, unready)
        result = msgspec.structs.replace(
            started,
            stage="measured",
            parameters=started.parameters | {"fakes_not_ready": unready},
            fidelity=deviations(facts),
            evidence=evidence,
            outcome=derive_outcome(evidence),
        )
        folder.write(result)
        self.measurement = Measurement(result, folder, refusals(facts, evidence), self._repro)
        return self.measurement

    def stop(self) -> None:
        """End the observers and remove the node."""
        self._stack.close()
        if hasattr(self, "_host"):
            self._lab.retire(self._host)

    def _observe(self, host: HostNode) -> None:
        self._host = host
        enter = self._stack.enter_context
        self._recorder = enter(open_recorder(self._zero_s))
        self._recorder.watch(host.cgroup)
        self._kernel_log = enter(KernelLog(self._zero_s))
        self._sampler = enter(CgroupSampler(host.cgroup, self._zero_s))
        self._status = enter(NodeStatusWatcher(host.endpoint, host.name, self._zero_s))

    def _start_kube_proxy(self) -> None:
        with self._lab.phase("baseline", f"kube-proxy {self.spec.kube_proxy} in sync with an idle cluster"):
            self._host.start_kube_proxy()
            now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            self._proxy_log = ProxyLog(self._host.kube_proxy_log, zero_in_local_time(self._zero_s, now_s))
            wait_until(
                self._first_sync,
                what="kube-proxy's first sync",
                timeout_s=BASELINE_TIMEOUT_S,
                interval_s=_POLL_S,
                describe=self._host.daemons["kube-proxy"].log_tail,
            )
            self._baseline = self._sampler.sample()

    def _first_sync(self) -> bool | None:
        self._host.daemons["kube-proxy"].require_alive()
        done = [sync for sync in self._proxy_log.syncs() if sync.full and sync.ended_at_s is not None]
        return True if {sync.family for sync in done} == {"IPv4", "IPv6"} else None

    def _wait(
        self, service: Workload, applied_at_s: float, until_s: float
    ) -> tuple[float | None, Ruleset | None]:
        """When it was programmed, with the ruleset that proves it; (None, None) for every other end."""
        expected = programmed(service.spec)
        death_s: float | None = None
        while self._now_s() < until_s:
            guard.check()
            syncs = self._proxy_log.syncs()
            complete_at_s = self._complete_at_s(syncs, expected, applied_at_s)
            if complete_at_s is not None:
                ruleset = self._listing(service)
                if expected.matches(ruleset):
                    return complete_at_s, ruleset
            if sum(sync.error is not None for sync in syncs) >= FAILURES_WATCHED:
                break
            if any(record.exit_code is not None for record in self._host.daemon_records()):
                death_s = death_s or self._now_s()
                if self._now_s() - death_s > DAEMON_DEATH_WATCHED_S:
                    break
            time.sleep(_POLL_S)
        return None, None

    @staticmethod
    def _complete_at_s(
        syncs: tuple[ProxySync, ...], expected: Programmed, applied_at_s: float
    ) -> float | None:
        """When every family had its first sync with all endpoints after they were applied."""
        ends_s: list[float] = []
        for family in expected.families:
            ended_s = [sync.ended_at_s or 0.0 for sync in syncs if expected.is_complete(sync, family)]
            ends_s += [end_s for end_s in ended_s if end_s >= applied_at_s][:1]
        return max(ends_s) if len(ends_s) == len(expected.families) else None

    def _listing(self, service: Workload) -> Ruleset:
        netns, services = self._host.netns, service.full_names
        if self.spec.proxy_mode == "nftables":
            return read_ruleset(netns=netns, services=services)
        return read_iptables(netns=netns, services=services, xtables=self._host.binaries[XTABLES].path)

    def _evidence(
        self,
        service: Workload,
        applied_at_s: float,
        programmed_at_s: float | None,
        ruleset: Ruleset | None,
    ) -> Evidence:
        end = self._sampler.sample()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return Evidence(
            zero_utc=self._zero_utc.isoformat(),
            node=self.name,
            kube_proxy=self.spec.kube_proxy,
            endpoints_expected=service.spec.proxy_endpoints,
            endpoint_mode=service.spec.mode,
            workload_applied_at_s=applied_at_s,
            programmed_at_s=programmed_at_s,
            ended_at_s=self._now_s(),
            exits=self._recorder.exits(self._host.cgroup),
            exit_records_lost=self._recorder.lost,
            measured_by=self._recorder.measured_by,
            oom_kills=self._kernel_log.kills(self._host.cgroup),
            cgroup=self._cgroup_evidence(end),
            syncs=self._proxy_log.syncs(),
            sync_failures_metric=self._sync_failures(),
            status=self._status.samples,
            ruleset=ruleset or self._listing(service),
            daemons=self._host.daemon_records(),
            harness_memory_bytes_peak=usage.ru_maxrss * 1024,
            harness_cpu_s=self._sampler.cpu_s + self._status.cpu_s,
            expected=programmed(service.spec),
            shape=", ".join(filter(None, (service.spec.shape, self._mode_word))),
            loader=self.spec.loader,
        )

    def _cgroup_evidence(self, end: CgroupSample) -> CgroupEvidence:
        reading = self._host.cgroup.read()
        exact = reading.kernel_bytes_peak
        return CgroupEvidence(
            mode=self._host.cgroup.mode,
            limit_bytes=self.spec.memory_bytes,
            charged_bytes_peak=Measure(
                value=reading.charged_bytes_peak or reading.charged_bytes,
                source="cgroup_counter",
                bound="lower" if reading.charged_bytes_peak is None else "exact",
            ),
            unreclaimable_bytes_peak=self._sampler.unreclaimable_bytes_peak,
            kernel_bytes_peak=self._sampler.kernel_bytes_peak
            if exact is None
            else Measure(value=exact, source="cgroup_counter", bound="exact"),
            baseline=self._baseline,
            end=end,
            oom_kills=reading.oom_kills,
            samples=self._sampler.samples,
            sample_interval_s=self._sampler.interval_s,
        )

    def _facts(self, service: Workload, environment: Environment, unready: int | None) -> RunFacts:
        cluster = self._lab.cluster
        scores = {record.oom_score_adj for record in self._host.daemon_records()}
        return RunFacts(
            cgroup_mode=self._host.cgroup.mode,
            oom_scores="production" if scores == {PRODUCTION_OOM_SCORE_ADJ} else "flat",
            node_memory_bytes=self.spec.memory_bytes,
            memory_bytes_seen_by_kubelet=guard.memory_total_bytes(),
            node_monitor_grace_period_s=cluster.budget.grace_s,
            fake_lease_duration_s=cluster.budget.lease_s,
            endpoint_mode=service.spec.mode,
            daemonset_off_real_nodes=service.spec.mode != "endpointslices",
            pods_on_real_node=False,
            node_credentials=False,
            shares_host_kernel=True,
            host_cpus=os.cpu_count() or 0,
            apiserver=cluster.version,
            kube_proxy=self.spec.kube_proxy,
            rebuilt=tuple(part for part in environment.components if part.source.startswith("go-build")),
            ballast_bytes=self.spec.ballast_bytes,
            text=self.spec.text,
            fakes_not_ready=unready,
        )

    def _sync_failures(self) -> int | None:
        """kube-proxy's own count of failed syncs; None when it doesn't answer."""
        try:
            with urllib.request.urlopen(self._host.metrics_url, timeout=METRICS_TIMEOUT_S) as answer:  # noqa: S310
                return parse_metrics(answer.read().decode()).sync_failures
        except OSError:
            return None

    def _started(self, service: Workload) -> RunResult:
        return RunResult(
            format=FORMAT,
            run_id=self._lab.run_folder.session.run_id,
            test_id=self._test_id,
            started_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            stage="started",
            parameters={
                "endpoints": service.spec.proxy_endpoints,
                "asked": service.spec.asked,
                "ports": len(service.spec.ports),
                "endpoint_mode": service.spec.mode,
                "shape": service.spec.shape,
                "proxy_mode": self.spec.proxy_mode,
                "kube_proxy": self.spec.kube_proxy,
                "memory_bytes": self.spec.memory_bytes,
                "ballast_bytes": self.spec.ballast_bytes,
                "text": self.spec.text,
                "fleet_nodes": self._lab.fleet.size,
                "fleet_lease_s": self._lab.cluster.budget.lease_s,
                "fleet_renewals_per_s": round(self._lab.cluster.budget.renewals_per_s, 1),
                "node_monitor_grace_period_s": self._lab.cluster.budget.grace_s,
                "cluster": self._lab.cluster.kind,
            },
            environment=self._lab.environment(),
            fidelity=(),
        )

    @property
    def _mode_word(self) -> str:
        return "" if self.spec.proxy_mode == "nftables" else f"{self.spec.proxy_mode} mode"

    def _now_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self._zero_s
