"""One measurement: what a Service costs a real node.

The life of a node under measurement, in order:

1. the observers attach to the node's empty cgroup, so that nothing the node does escapes them;
2. the node boots, becomes Ready, kube-proxy makes its first sync of an empty cluster: the *baseline*;
3. a *phase* acts on it: the Service is applied, endpoints move, kube-proxy restarts; from here on the node
   pays;
4. waiting, until the ruleset holds what the Service has now (*programmed*), or kube-proxy's failure was seen
   together with its retries, or a daemon died for good, or the time is up: now it is *settled*;
5. a while more, so that what clients meet and what the control plane says is seen;
6. the evidence is captured, before anything is torn down, and written to the run folder;
7. the outcome is derived from the evidence alone, and checked by the scenario.

Steps 3 to 7 repeat for each phase of the same node.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from framework import guard
from framework.analysis import (
    PHASE_WORDS,
    Expectation,
    RunFacts,
    VerdictError,
    derive_outcome,
    describe_ballast,
    describe_scores,
    deviations,
    judge,
    refusals,
)
from framework.capture import Clock, Marks, Observers, Window
from framework.disturbances import Disturbances
from framework.errors import BadInputError, KilonodeError, TimeLimitError
from framework.fleet import REAL_NODE_ZONE
from framework.lab import Lab
from framework.log import get_logger
from framework.observe import delete_ruleset, read_iptables, read_ruleset
from framework.outcome import (
    Asked,
    Connect,
    Doubt,
    Environment,
    Outcome,
    Phase,
    PhaseAsked,
    Programmed,
    ProxySync,
    Ruleset,
    RunResult,
    Verdict,
    WatchAsked,
)
from framework.realnode import Node
from framework.report import FORMAT, MeasurementFolder
from framework.spec import DAEMON_NAMES, ManyServicesSpec, RealNodeSpec, ServiceSpec
from framework.traffic import Client
from framework.versioned_file import now_utc
from framework.wait import wait_until
from framework.workload import DaemonSetService, Workload, answering, programmed

log = get_logger(__name__)

BASELINE_TIMEOUT_S: Final = 60.0
PROGRAM_TIMEOUT_S: Final = 180.0
PROGRAM_TIMEOUT_S_PER_ENDPOINT: Final = 0.005
"""kube-proxy 1.35 and nft work 40 s on 100,000 endpoints, and start over for slices that come meanwhile."""
FAILURES_WATCHED: Final = 3
"""A failed sync and two retries: enough to see that kube-proxy tries again, and how often."""
DAEMON_DEATH_WATCHED_S: Final = 5.0
SETTLED_WATCHED_S: Final = 5.0
"""What follows the last event is watched this much longer: samples of the status enclose it, and clients try
the Service often enough for a percentile."""
NOT_READY_SLACK_S: Final = 30.0
"""Beyond the grace period: the controller looks each 5 s, and 100,000 nodes keep it busy."""
LEASE_TIMEOUT_S: Final = 30.0
LEASE_RENEWED_S_MAX: Final = 12.0
"""kubelet renews each 10 s: an older lease is a silent node's."""
ROLLING_STEP_S: Final = 1.0
UNSEEN_WATCHED_S: Final = 30.0
"""How long a node is watched of which neither syncs nor the ruleset can be seen: its status and lease are."""
BLIND_LISTING_INTERVAL_S: Final = 2.0
"""Between two listings where no log says that one is worth it."""
_FULL_SYNC_PHASES: Final[frozenset[Phase]] = frozenset({"cold_start", "kube_proxy_restart", "full_resync"})
KERNEL_LOG: Final = "kernel.log"
_POLL_S: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How long a phase is followed.

    It is settled when it is programmed, after ``failures`` failed syncs, when a daemon is gone for good, or
    after ``timeout_s`` (None: three minutes, and five more for each 60,000 endpoints). Then it is watched on
    until ``until_s`` after its beginning. With ``until_not_ready`` it is settled when the node controller
    calls the node NotReady, and watched on until it calls a node that fell silent so, or should have. Raises
    BadInputError for one that would follow nothing.
    """

    failures: int = FAILURES_WATCHED
    timeout_s: float | None = None
    until_s: float = 0.0
    until_not_ready: bool = False

    def __post_init__(self) -> None:
        for name, least in (("failures", 1), ("timeout_s", 0), ("until_s", 0)):
            value = getattr(self, name)
            if value is None and name == "timeout_s":
                continue
            if not isinstance(value, int | float) or not value >= least:
                raise BadInputError(f"{value!r} is no {name}", where="Watch", remedy=f"give {least} or more")


DEFAULT_WATCH: Final = Watch()


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


@dataclass
class _Begun:
    """A phase under way, with its place in the run folder and what stands there already."""

    result: RunResult
    folder: MeasurementFolder
    window: Window
    disturbances: Disturbances


@dataclass(frozen=True)
class _Settled:
    """When it was decided what became of the Service; ``programmed_at_s`` with the ruleset that proves it."""

    at_s: float
    programmed_at_s: float | None = None
    ruleset: Ruleset | None = None


class RealNode:
    """A real node under observation; made by ``RealNode.start``, and ended by ``stop``."""

    def __init__(
        self, lab: Lab, spec: RealNodeSpec, *, test_id: str, repro: str, clock: Clock | None = None
    ) -> None:
        self.spec = lab.settled(spec)
        self.measurements: list[Measurement] = []
        self.broken: list[RunResult] = []
        """What was begun and did not come to its end."""
        self._lab = lab
        self._test_id = test_id
        self._repro = repro
        self._clock = clock or Clock.start()
        self._death_s: float | None = None
        self.zone = REAL_NODE_ZONE
        self._client: Client | None = None
        self._connects: list[Connect] = []
        self._next_listing_s = 0.0
        self._host: Node
        self._observers: Observers

    @classmethod
    def start(
        cls, lab: Lab, spec: RealNodeSpec, *, test_id: str, repro: str, clock: Clock | None = None
    ) -> RealNode:
        """Boot a node with its observers attached; Ready, kube-proxy in sync with an idle cluster.

        Nodes that share a ``clock`` tell their times on it.
        """
        node = cls(lab, spec, test_id=test_id, repro=repro, clock=clock)
        try:
            lab.boot(node.spec, node._observe)
            if node.spec.client:
                node._client = lab.client(node._host)
            with lab.phase("baseline", f"kube-proxy {spec.kube_proxy} in sync with an idle cluster"):
                if node._host.is_ours:
                    node._start_kube_proxy()
                node._observers.take_baseline()
        except BaseException:
            node.stop()
            raise
        return node

    @property
    def name(self) -> str:
        return self._host.name

    @property
    def netns(self) -> str | None:
        """The network namespace on this machine whose ruleset is the node's; None for a node elsewhere."""
        return self._host.netns

    @property
    def transactions(self) -> tuple[Path, ...]:
        """What kube-proxy handed to nft, oldest first, where the node captures it; gone with the node."""
        return self._host.transactions

    def program(self, service: Workload, watch: Watch = DEFAULT_WATCH) -> Measurement:
        """First programming: create ``service`` under a running kube-proxy."""
        return self._measure("first_programming", service, service.apply, watch)

    def change_endpoints(
        self, service: DaemonSetService, count: int, watch: Watch = DEFAULT_WATCH
    ) -> Measurement:
        """``count`` endpoints, spread evenly, move to new addresses at once."""
        return self._measure(
            "endpoints_changed", service, lambda: service.replace(count), watch, endpoints_changed=count
        )

    def roll_endpoints(
        self, service: DaemonSetService, *, per_s: int, for_s: int, watch: Watch = DEFAULT_WATCH
    ) -> Measurement:
        """A rolling replacement: ``per_s`` endpoints a second move to new addresses during ``for_s``."""

        def roll() -> float:
            begun_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            for step in range(for_s):
                due_s = begun_s + step * ROLLING_STEP_S
                time.sleep(max(0.0, due_s - time.clock_gettime(time.CLOCK_BOOTTIME)))
                service.replace(per_s, first=step)
            return begun_s

        return self._measure("rolling_replacement", service, roll, watch, per_s=per_s, for_s=for_s)

    def restart_kube_proxy(self, service: Workload, watch: Watch = DEFAULT_WATCH) -> Measurement:
        """kube-proxy ends and starts again, with its rules in the kernel."""

        def restart() -> float:
            self._host.stop_kube_proxy()
            return self._start_kube_proxy_now()

        return self._measure("kube_proxy_restart", service, restart, watch)

    def cold_start(self, service: Workload, watch: Watch = DEFAULT_WATCH) -> Measurement:
        """kube-proxy starts as after a boot: the Service is there, and none of its rules in the kernel.

        Raises BadInputError in iptables mode, whose chains are not kube-proxy's alone.
        """
        self._require_cold_start()
        self._empty()

        def start() -> float:
            service.apply()
            return self._start_kube_proxy_now()

        return self._measure("cold_start", service, start, watch)

    def resync(self, service: Workload, watch: Watch = DEFAULT_WATCH) -> Measurement:
        """A label of the Node changes for which kube-proxy syncs everything."""
        return self._measure("full_resync", service, self._relabel, watch)

    def delete(self, service: Workload, watch: Watch = DEFAULT_WATCH) -> Measurement:
        """The Service and its endpoints are deleted."""

        def withdraw() -> float:
            begun_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            service.withdraw()
            return begun_s

        return self._measure("service_deleted", service, withdraw, watch)

    def move_to_zone(self, zone: str) -> None:
        """The Node's zone label becomes ``zone``, another than before; kube-proxy has synced for it then.

        For Services whose slices have hints. A kube-proxy that starts can miss the zone that its Node has,
        and then sends to all zones: it watches the Node before the part that wants the zone is registered
        (``NodeTopologyConfig`` in cmd/kube-proxy/app/server.go, 1.34 to 1.37). A later change is not missed.
        """
        labelled_at_s = self._label_zone(zone) - self._clock.zero_s
        self._wait_for_full_sync(f"kube-proxy's sync for {zone}", since_s=labelled_at_s)

    def stop(self) -> None:
        """End the observers and remove the node."""
        if hasattr(self, "_observers"):
            self._observers.stop()
        if self._client is not None:
            self._client.stop()
        if hasattr(self, "_host"):
            self._lab.retire(self._host)

    def _observe(self, host: Node) -> None:
        self._host = host
        self._observers = Observers(host, self._clock)

    def _require_cold_start(self) -> None:
        if self.spec.proxy_mode != "nftables":
            raise BadInputError(
                f"the rules of {self.spec.proxy_mode} mode can't be taken away as a boot would",
                where="cold_start",
                remedy="leave proxy_mode at nftables, or use restart_kube_proxy",
            )

    def _empty(self) -> None:
        """No kube-proxy, and none of its rules."""
        self._host.stop_kube_proxy()
        assert self._host.netns is not None  # noqa: S101 - its kube-proxy could be stopped
        delete_ruleset(netns=self._host.netns)

    def _start_kube_proxy_now(self) -> float:
        begun_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._host.start_kube_proxy()
        return begun_s

    def _relabel(self) -> float:
        return self._label_zone(f"zone-resync-{len(self.measurements)}")

    def _label_zone(self, zone: str) -> float:
        """The moment before the label changes (CLOCK_BOOTTIME, seconds)."""
        begun_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.zone = zone
        self._host.label_zone(zone)
        return begun_s

    def _start_kube_proxy(self) -> None:
        self._host.start_kube_proxy()
        self._wait_for_full_sync("kube-proxy's first sync")

    def _wait_for_full_sync(self, what: str, *, since_s: float = 0.0) -> None:
        """Until both families have a full sync that began after ``since_s``."""

        def done() -> bool | None:
            self._host.require_alive("kube-proxy")
            full = (s for s in self._observers.syncs if s.full and s.ended_at_s is not None)
            families = {sync.family for sync in full if sync.started_at_s >= since_s}
            return True if families == {"IPv4", "IPv6"} else None

        wait_until(
            done,
            what=what,
            timeout_s=BASELINE_TIMEOUT_S,
            interval_s=_POLL_S,
            describe=lambda: self._host.log_tail("kube-proxy"),
        )

    def _wait_for_lease(self) -> None:
        """kubelet makes it up to 10 s after the Node; a node without one can't fall silent."""
        wait_until(
            lambda: self._observers.last_look and self._observers.last_look.lease_age_s,
            what=f"the lease of {self.name}",
            timeout_s=LEASE_TIMEOUT_S,
            interval_s=_POLL_S,
        )

    def _measure(
        self,
        phase: Phase,
        service: Workload,
        act: Callable[[], float],
        watch: Watch,
        **parameters: int,
    ) -> Measurement:
        """Act and follow. ``act`` gives the moment from which the node pays (CLOCK_BOOTTIME, seconds)."""
        if watch.until_not_ready:
            self._wait_for_lease()
        begun = self._begin(_phase_asked(phase, watch, parameters), service)
        told = f"{_words(phase, service)} on {self.name}"
        with self._noted_if_broken(begun), self._lab.phase("programming", told):
            applied_at_s = act() - self._clock.zero_s
            self._ask(service)
            (settled,) = _drive([self._follow(service, begun, applied_at_s, watch)])
        return self._captured(service, begun, applied_at_s, settled)

    @contextmanager
    def _noted_if_broken(self, begun: _Begun) -> Iterator[None]:
        """What keeps a measurement from its end stands in its result, which is unknown for that reason."""
        try:
            yield
        except BaseException as error:
            causes = [each.text for each in begun.disturbances.noticed()]
            verdict = Verdict(result="unknown", reasons=tuple(dict.fromkeys([*causes, _why_broken(error)])))
            begun.result = msgspec.structs.replace(begun.result, verdict=verdict)
            self.broken.append(begun.result)
            with suppress(KilonodeError):
                begun.folder.write(begun.result)
            raise

    def _begin(self, act: PhaseAsked, service: Workload, *, together: int = 1) -> _Begun:
        if self._client is not None:
            self._lab.backends.serve(service.spec.ports)
        started = self._started(service, act, together)
        return _Begun(
            started,
            self._lab.run_folder.start(started),
            self._observers.begin(act.phase),
            Disturbances(self._lab.cluster, self._clock),
        )

    def _follow(
        self, service: Workload, begun: _Begun, applied_at_s: float, watch: Watch
    ) -> Generator[None, None, _Settled]:
        """Until it is settled, and as much longer as ``watch`` says; waits wherever it yields."""
        phase = begun.window.phase
        deadline_s = applied_at_s + _timeout_s(service, watch)
        expected = self._expected(service)
        settled: _Settled | None = None
        listed_at_s = applied_at_s
        while settled is None or (self._watches_on(applied_at_s, watch) and not begun.disturbances.any):
            guard.check()
            if begun.disturbances.look():
                self._lab.require_cluster()
            if settled is None or settled.programmed_at_s is None:
                syncs = [s for s in self._observers.syncs if (s.ended_at_s or 0.0) >= applied_at_s]
                if settled is None and not self._observers.sees("syncs"):
                    settled = self._follow_blindly(service, expected, applied_at_s)
                sync = _complete_sync(syncs, expected, phase, listed_at_s)
                if sync is not None:
                    listed_at_s = self._clock.now_s()
                    ruleset = self._listing(service)
                    if ruleset is None:
                        settled = _Settled(listed_at_s, sync.ended_at_s)
                        continue
                    if expected.matches(ruleset) and not self._synced_since(sync, expected, phase):
                        settled = _Settled(sync.ended_at_s or listed_at_s, sync.ended_at_s, ruleset)
                        continue
                decided = begun.disturbances.any or self._is_decided(syncs, watch, deadline_s)
                if settled is None and decided:
                    settled = _Settled(self._clock.now_s())
            yield
        until_s = self._clock.now_s() + SETTLED_WATCHED_S
        while self._clock.now_s() < until_s:
            begun.disturbances.look()
            yield
        return settled

    def _synced_since(self, sync: ProxySync, expected: Programmed, phase: Phase) -> bool:
        """Whether a later sync than ``sync`` may have made the ruleset that was listed after it.

        A listing of 100,000 endpoints takes as long as a sync. Where the log tells by its number of endpoints
        which sync had the changes, it does not matter.
        """
        if _log_tells(phase):
            return False
        ours = (later for later in self._observers.syncs if later.family in expected.families)
        return any(later.started_at_s > (sync.ended_at_s or 0.0) for later in ours)

    def _expected(self, service: Workload) -> Programmed:
        """What the node is to be programmed with at this moment."""
        return programmed(service.spec, node_zone=self.zone, applied=service.is_applied)

    def _is_decided(self, syncs: Sequence[ProxySync], watch: Watch, deadline_s: float) -> bool:
        """By the time, the node controller, failed ``syncs`` of this phase, or a daemon's death."""
        if self._clock.now_s() >= deadline_s:
            return True
        look = self._observers.last_look
        if watch.until_not_ready and look is not None and look.ready != "True":
            return True
        return sum(sync.error is not None for sync in syncs) >= watch.failures or self._is_dead()

    def _is_dead(self) -> bool:
        """A daemon of the node is gone for good, for a while already."""
        if self.spec.restart != "none":
            return False
        if all(self._host.is_alive(daemon) for daemon in DAEMON_NAMES):
            return False
        self._death_s = self._death_s or self._clock.now_s()
        return self._clock.now_s() - self._death_s > DAEMON_DEATH_WATCHED_S

    def _watches_on(self, applied_at_s: float, watch: Watch) -> bool:
        if self._clock.now_s() < applied_at_s + watch.until_s:
            return True
        look = self._observers.last_look
        if not watch.until_not_ready or look is None or look.ready != "True":
            return False
        age_s = look.lease_age_s or 0.0
        silent = age_s > LEASE_RENEWED_S_MAX or not self._host.is_alive("kubelet")
        return silent and age_s < self._lab.cluster.budget.grace_s + NOT_READY_SLACK_S

    def _follow_blindly(
        self, service: Workload, expected: Programmed, applied_at_s: float
    ) -> _Settled | None:
        """Where kube-proxy's log tells no sync: until the ruleset is complete or, unseen too, a while."""
        now_s = self._clock.now_s()
        if not self._observers.sees("ruleset"):
            return _Settled(now_s) if now_s > applied_at_s + UNSEEN_WATCHED_S else None
        if now_s < self._next_listing_s:
            return None
        ruleset = self._listing(service)
        self._next_listing_s = self._clock.now_s() + BLIND_LISTING_INTERVAL_S
        if ruleset is None or not expected.matches(ruleset):
            return None
        return _Settled(self._clock.now_s(), None, ruleset)

    def _listing(self, service: Workload) -> Ruleset | None:
        """What the node's kernel holds; None where nobody can look, or an nft that starves is in the way."""
        try:
            return self._listed(service)
        except TimeLimitError as error:
            log.warning("%s: %s", self.name, error.what)
            return None

    def _listed(self, service: Workload) -> Ruleset | None:
        netns, services, pairs = self._host.netns, service.full_names, service.pairs
        if netns is None:
            remote = self._host.remote
            if remote is None:
                return None
            return read_ruleset(netns=None, services=services, expected=pairs, prefix=remote.command)
        if self.spec.proxy_mode == "nftables":
            return read_ruleset(netns=netns, services=services, expected=pairs)
        return read_iptables(netns=netns, services=services, expected=pairs, xtables=self._host.xtables)

    def _captured(
        self, service: Workload, begun: _Begun, applied_at_s: float, settled: _Settled
    ) -> Measurement:
        with self._noted_if_broken(begun):
            return self._capture(service, begun, applied_at_s, settled)

    def _capture(
        self, service: Workload, begun: _Begun, applied_at_s: float, settled: _Settled
    ) -> Measurement:
        folder = begun.folder
        with self._lab.phase("evidence", str(folder.path.name)):
            marks = Marks(
                applied_at_s=applied_at_s,
                last_changed_at_s=max(applied_at_s, service.last_changed_s() - self._clock.zero_s),
                programmed_at_s=settled.programmed_at_s,
                settled_at_s=settled.at_s,
                ruleset=settled.ruleset or self._listing(service),
                endpoint_mode=service.spec.mode,
                endpoints_expected=service.spec.proxy_endpoints if service.is_applied else 0,
                expected=self._expected(service),
                shape=self._shape(service),
                addresses_expected=answering(service.spec, node_zone=self.zone, applied=service.is_applied),
                addresses_gone=service.addresses_gone,
                connects=self._connects_so_far(),
                node_monitor_grace_period_s=self._lab.cluster.budget.known_grace_s,
                disturbances=begun.disturbances.noticed(),
            )
            evidence = self._observers.evidence(begun.window, marks)
            unready = self._lab.unready_fakes()
            facts = self._facts(service, begun.result.environment, unready)
            result = msgspec.structs.replace(
                begun.result,
                stage="measured",
                parameters=begun.result.parameters | {"fakes_not_ready": unready},
                fidelity=deviations(facts),
                evidence=evidence,
                outcome=derive_outcome(evidence),
            )
            folder.write(result)
            begun.result = result
            with folder.filling():
                self._host.keep_logs(folder.logs)
                kernel_log = "".join(f"{line}\n" for line in self._observers.kernel_lines(begun.window))
                (folder.logs / KERNEL_LOG).write_text(kernel_log)
        measurement = Measurement(result, folder, refusals(facts, evidence), self._repro)
        self.measurements.append(measurement)
        return measurement

    def _ask(self, service: Workload) -> None:
        """Have the client ask the first Service, from its creation on; nobody asks a headless one here."""
        if self._client is not None and service.cluster_ip is not None:
            self._client.ask(service.cluster_ip, service.spec.ports[0], service.spec.protocol)

    def _shape(self, service: Workload) -> str:
        """How the measured differs from one TCP Service of one port under kube-proxy in nftables mode."""
        mode = "" if self.spec.proxy_mode == "nftables" else f"{self.spec.proxy_mode} mode"
        return ", ".join(filter(None, (service.spec.shape, mode)))

    def _connects_so_far(self) -> tuple[Connect, ...]:
        if self._client is not None:
            self._connects += self._client.connects(self._clock.zero_s)
        return tuple(self._connects)

    def _facts(self, service: Workload, environment: Environment, unready: int | None) -> RunFacts:
        cluster = self._lab.cluster
        return RunFacts(
            cgroup_mode=self._host.cgroup.mode if self._host.cgroup is not None else None,
            oom_scores=self._host.oom_scores,
            node_memory_bytes=self.spec.memory_bytes,
            memory_bytes_seen_by_kubelet=guard.memory_total_bytes()
            if self._host.netns is not None
            else self.spec.memory_bytes,
            node_monitor_grace_period_s=cluster.budget.known_grace_s,
            fake_lease_duration_s=cluster.budget.lease_s,
            endpoint_mode=service.spec.mode,
            daemonset_off_real_nodes=service.spec.mode != "endpointslices",
            pods_on_real_node=bool(self.spec.pods) or not self._host.is_ours,
            node_credentials=cluster.kind != "embedded",
            shares_host_kernel=self._host.netns is not None,
            host_cpus=os.cpu_count() or 0,
            apiserver=cluster.version,
            kube_proxy=self.spec.kube_proxy,
            rebuilt=tuple(part for part in environment.components if part.source.startswith("go-build")),
            ballast=self.spec.ballast,
            text=self.spec.text,
            fakes_not_ready=unready,
            captures_transactions=self.spec.capture_transactions,
            kind_worker=cluster.kind == "kind",
            existing_cluster=cluster.kind == "existing",
            other_runs=self._lab.other_runs(),
            sentinel=isinstance(service.spec, ServiceSpec) and service.spec.headless,
        )

    def _started(self, service: Workload, act: PhaseAsked, together: int) -> RunResult:
        budget = self._lab.cluster.budget
        policy = self.spec.oom_policy
        return RunResult(
            format=FORMAT,
            run_id=self._lab.run_folder.session.run_id,
            test_id=self._test_id,
            started_utc=now_utc(),
            stage="started",
            parameters={
                "phase": act.phase,
                "endpoints": service.spec.proxy_endpoints,
                "asked": service.spec.asked,
                "services": len(service.spec.names),
                "ports": len(service.spec.ports),
                "endpoint_mode": service.spec.mode,
                "shape": self._shape(service) or "plain",
                "proxy_mode": self.spec.proxy_mode,
                "kube_proxy": self.spec.kube_proxy,
                "memory_bytes": self.spec.memory_bytes,
                "ballast_bytes": self.spec.ballast_bytes,
                "ballast": describe_ballast(self.spec.ballast),
                "ballast_profile": self.spec.ballast_profile,
                "oom_policy": policy if isinstance(policy, str) else describe_scores(policy),
                "restart": self.spec.restart,
                "text": self.spec.text,
                "capture_transactions": self.spec.capture_transactions,
                "fleet_nodes": self._lab.fleet.size,
                "fleet_lease_s": budget.lease_s,
                "fleet_renewals_per_s": round(budget.renewals_per_s, 1),
                "node_monitor_grace_period_s": budget.known_grace_s,
                "cluster": self._lab.cluster.kind,
                **act.parameters,
            },
            environment=self._lab.environment(),
            fidelity=(),
            asked=self._asked(service, act, together),
            repro=self._repro,
        )

    def _asked(self, service: Workload, act: PhaseAsked, together: int) -> Asked:
        spec = service.spec
        before: list[Asked] = []
        for asked in (each.result.asked for each in reversed(self.measurements)):
            if asked is None or spec not in (asked.service, asked.many_services):
                break
            before.insert(0, asked)
        return Asked(
            node=self.spec,
            service=spec if isinstance(spec, ServiceSpec) else None,
            many_services=spec if isinstance(spec, ManyServicesSpec) else None,
            fleet_nodes=self._lab.fleet.size,
            zone=before[0].zone if before else self.zone,
            act=act,
            earlier=tuple(asked.act for asked in before),
            together=together,
        )


def _phase_asked(phase: Phase, watch: Watch, parameters: Mapping[str, int] | None = None) -> PhaseAsked:
    return PhaseAsked(
        phase=phase, parameters=dict(parameters or {}), watch=WatchAsked(**dataclasses.asdict(watch))
    )


def program_together(
    nodes: Sequence[RealNode], service: Workload, watch: Watch = DEFAULT_WATCH
) -> tuple[Measurement, ...]:
    """First programming of several nodes at once, under one Service; in the order of ``nodes``."""
    return _together("first_programming", nodes, service, lambda: [service.apply()] * len(nodes), watch)


def cold_start_together(
    nodes: Sequence[RealNode], service: Workload, watch: Watch = DEFAULT_WATCH
) -> tuple[Measurement, ...]:
    """A cold start of several nodes at once, as ``RealNode.cold_start``; in the order of ``nodes``."""
    for node in nodes:
        node._require_cold_start()
    for node in nodes:
        node._empty()

    def start() -> list[float]:
        service.apply()
        return [node._start_kube_proxy_now() for node in nodes]

    return _together("cold_start", nodes, service, start, watch)


def resync_together(
    nodes: Sequence[RealNode], service: Workload, watch: Watch = DEFAULT_WATCH
) -> tuple[Measurement, ...]:
    """A full resync of several nodes at once, as ``RealNode.resync``; in the order of ``nodes``."""
    return _together("full_resync", nodes, service, lambda: [node._relabel() for node in nodes], watch)


def _together(
    phase: Phase,
    nodes: Sequence[RealNode],
    service: Workload,
    act: Callable[[], Sequence[float]],
    watch: Watch,
) -> tuple[Measurement, ...]:
    """``act`` gives the moment from which each node pays (CLOCK_BOOTTIME, seconds)."""
    act_asked = _phase_asked(phase, watch)
    begun = [node._begin(act_asked, service, together=len(nodes)) for node in nodes]
    names = ", ".join(node.name for node in nodes)
    with ExitStack() as noted:
        for node, one in zip(nodes, begun, strict=True):
            noted.enter_context(node._noted_if_broken(one))
        with nodes[0]._lab.phase("programming", f"{_words(phase, service)} on {names}"):
            acted_s = act()
            for node in nodes:
                node._ask(service)
            applied_at_s = [each - node._clock.zero_s for node, each in zip(nodes, acted_s, strict=True)]
            settled = _drive(
                [
                    node._follow(service, one, at_s, watch)
                    for node, one, at_s in zip(nodes, begun, applied_at_s, strict=True)
                ]
            )
    return tuple(
        node._captured(service, one, at_s, end)
        for node, one, at_s, end in zip(nodes, begun, applied_at_s, settled, strict=True)
    )


def _why_broken(error: BaseException) -> str:
    match error:
        case KilonodeError():
            return error.what
        case KeyboardInterrupt():
            return "it was interrupted"
        case _:
            return f"it broke off: {type(error).__name__}: {error}"


def _complete_sync(
    syncs: Sequence[ProxySync], expected: Programmed, phase: Phase, since_s: float
) -> ProxySync | None:
    """The one of ``syncs`` of this phase by which all may have been programmed.

    Every family must have had one, and some family one since ``since_s``, when that was last looked at. Given
    is the one that ended last, of each family the first since then; the last where the log can't tell, by the
    number of endpoints, which sync had the changes.
    """
    full_only = phase in _FULL_SYNC_PHASES
    pick = 0 if _log_tells(phase) else -1
    ends: list[tuple[float, ProxySync]] = []
    for family in expected.families:
        ended = [
            (sync.ended_at_s or 0.0, sync)
            for sync in syncs
            if expected.is_complete(sync, family) and (sync.full or not full_only)
        ]
        if not ended:
            return None
        ends.append(([each for each in ended if each[0] >= since_s] or ended[-1:])[pick])
    at_s, last = max(ends, key=lambda each: each[0])
    return last if at_s >= since_s else None


def _log_tells(phase: Phase) -> bool:
    """Whether kube-proxy's log says, by the number of endpoints, which sync had the changes."""
    return phase in _FULL_SYNC_PHASES or phase == "first_programming"


def _drive(followed: Sequence[Generator[None, None, _Settled]]) -> list[_Settled]:
    """Follow all in turn, until each is done."""
    ends: dict[int, _Settled] = {}
    while len(ends) < len(followed):
        for index, each in enumerate(followed):
            if index in ends:
                continue
            try:
                next(each)
            except StopIteration as end:
                ends[index] = end.value
        time.sleep(_POLL_S)
    return [ends[index] for index in range(len(followed))]


def _timeout_s(service: Workload, watch: Watch) -> float:
    if watch.timeout_s is not None:
        return watch.timeout_s
    return PROGRAM_TIMEOUT_S + PROGRAM_TIMEOUT_S_PER_ENDPOINT * service.spec.proxy_endpoints


def _words(phase: Phase, service: Workload) -> str:
    return f"{PHASE_WORDS[phase]}, {service.spec.endpoints:,} endpoints"
