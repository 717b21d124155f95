"""How much memory a node needs: one node after the other on one cluster, each with a limit of its own.

Every trial has a fresh node in a fresh cgroup, because the kernel memory of the last one would stay charged.
The cluster, the fleet and the Service's pods are shared. A node that dies is not watched on: the first sync
that fails, or the first kill, is its end. Each trial is written to the run folder as it ends, so that an
interrupted search goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from framework.acts import STARTING_PHASES, perform
from framework.analysis import BAD_FATES, Expectation, VerdictError, describe_outcome
from framework.analysis.limit_search import (
    LimitEdge,
    LimitSearch,
    LimitTrial,
    edge,
    next_limit,
    trials_left,
    untold,
)
from framework.answers.answer import Answer
from framework.errors import BadInputError, KilonodeError, MissingRequirementError
from framework.lab import Lab
from framework.measurement import Measurement, RealNode, Watch
from framework.outcome import Environment, FidelityItem, Outcome, Phase, Verdict
from framework.spec import Ballast, OomPolicy, RealNodeSpec, Spec, require_count
from framework.units import mib
from framework.versioned_file import load_versioned, now_utc, this_command, write_versioned
from framework.workload import DaemonSetService

FORMAT: Final = 1
LIMIT_FILE: Final = "limit.json"
DEATH_TIMEOUT_S: Final = 10.0
"""What starves is not killed, and no sync ends: 10,000 endpoints take 3 s with memory enough."""
DEATH_TIMEOUT_PER_PROGRAMMED: Final = 2.0
"""Times as long as the node with the highest limit took: times wander by 2."""
SURVIVES: Final = Expectation(
    programming="programmed", ready_throughout=True, no_fates=tuple(sorted(BAD_FATES))
)


class LimitAsked(Spec, frozen=True, kw_only=True):
    """What the limit is asked of."""

    kube_proxy: str
    endpoints: int
    phase: Phase
    search: LimitSearch
    ballast: tuple[Ballast, ...] = ()
    ballast_profile: str = ""
    oom_policy: OomPolicy = "production"

    def __post_init__(self) -> None:
        require_count(self.endpoints, where="endpoints")
        if self.phase == "service_deleted":
            raise BadInputError(
                "to delete a Service takes less than to create it, which comes before",
                where="phase",
                remedy="give another phase",
            )
        self.node(self.search.first_bytes)

    def node(self, limit_bytes: int) -> RealNodeSpec:
        """A node with this limit. Raises BadInputError for one that can't be."""
        return RealNodeSpec(
            memory_bytes=limit_bytes,
            kube_proxy=self.kube_proxy,
            ballast=self.ballast,
            ballast_profile=self.ballast_profile,
            oom_policy=self.oom_policy,
            client=False,
        )


class LimitResult(Answer, frozen=True, kw_only=True):
    """The answer, complete or so far. ``environment`` and ``fidelity`` are those of the last trial."""

    asked: LimitAsked
    complete: bool
    trials: tuple[LimitTrial, ...]
    environment: Environment | None
    fidelity: tuple[FidelityItem, ...]

    @property
    def edge(self) -> LimitEdge:
        return edge(self.trials)


def load_limit(path: Path) -> LimitResult:
    """The answer in a run folder, or in a file. Raises BadInputError where there is none."""
    file = path / LIMIT_FILE if path.is_dir() else path
    return load_versioned(file, LimitResult, formats=(FORMAT,), made_by="`kilonode limit`")


def find_limit(
    lab: Lab,
    asked: LimitAsked,
    *,
    earlier: Sequence[LimitTrial] = (),
    on_trial: Callable[[LimitTrial], object] = id,
) -> LimitResult:
    """Search until the edge is known; ``earlier`` are trials of a search that was interrupted.

    Raises KilonodeError where nothing can be told of a limit, or the node with the highest one never comes
    up.
    """
    lab.grow_fleet(asked.endpoints)
    service = lab.service(endpoints=asked.endpoints)
    search = _Search(lab, asked, service, list(earlier))
    answer = search.answer(complete=False)
    while (limit_bytes := next_limit(asked.search, search.trials)) is not None:
        whys = untold(search.trials, limit_bytes)
        if whys:
            raise KilonodeError(
                f"nothing can be told of a node with {mib(limit_bytes)} MiB: {'; '.join(whys)}",
                where="limit",
                remedy="run it on a machine with less other load",
            )
        search.try_limit(limit_bytes)
        answer = search.answer(complete=next_limit(asked.search, search.trials) is None)
        on_trial(search.trials[-1])
    return answer


class _Search:
    """A search under way."""

    def __init__(self, lab: Lab, asked: LimitAsked, service: DaemonSetService, trials: list[LimitTrial]):
        self.trials = trials
        self._lab = lab
        self._asked = asked
        self._service = service
        self._last: Measurement | None = None

    def answer(self, *, complete: bool) -> LimitResult:
        """What is known, written to the run folder."""
        last = self._last.result if self._last is not None else None
        answer = LimitResult(
            format=FORMAT,
            made_utc=now_utc(),
            command=this_command(),
            asked=self._asked,
            complete=complete,
            trials=tuple(self.trials),
            environment=last.environment if last else None,
            fidelity=last.fidelity if last else (),
        )
        write_versioned(self._lab.run_folder.path / LIMIT_FILE, answer)
        return answer

    def try_limit(self, limit_bytes: int) -> None:
        """One more trial."""
        done = len(self.trials)
        left = trials_left(self._asked.search, self.trials)
        self._lab.reporter.phase_started("trials", self._bracket(limit_bytes), done + left)
        self._lab.reporter.phase_advanced("trials", done)
        begun_s = time.monotonic()
        trial = self._trial(limit_bytes)
        self.trials.append(msgspec.structs.replace(trial, elapsed_s=time.monotonic() - begun_s))

    def _bracket(self, limit_bytes: int) -> str:
        found = edge(self.trials)
        known = [
            f"{mib(found.killing_bytes)} MiB kills" if found.killing_bytes else "",
            f"{mib(found.surviving_bytes)} MiB survives" if found.surviving_bytes else "",
        ]
        return ", ".join(filter(None, (f"a node with {mib(limit_bytes)} MiB", *known)))

    def _trial(self, limit_bytes: int) -> LimitTrial:
        asked = self._asked
        test_id = f"limit-{asked.kube_proxy}-{asked.endpoints}-{mib(limit_bytes).replace(',', '')}MiB"
        self._service.withdraw()
        try:
            node = RealNode.start(self._lab, asked.node(limit_bytes), test_id=test_id, repro=this_command())
        except MissingRequirementError:
            raise
        except KilonodeError as error:
            self._lab.require_cluster()
            if not any(trial.survived for trial in self.trials):
                raise
            return self._dead(limit_bytes, f"it did not come up: {error.what}")
        try:
            return self._measured(node, limit_bytes)
        finally:
            node.stop()

    def _measured(self, node: RealNode, limit_bytes: int) -> LimitTrial:
        phase = self._asked.phase
        phases: tuple[Phase, ...] = (phase,) if phase in STARTING_PHASES else ("first_programming", phase)
        for each in phases:
            measurement = perform(node, self._service, each, watch=self._watch)
            verdict = _judged(measurement)
            if verdict.result != "pass":
                break
        self._last = measurement
        outcome = measurement.outcome
        died_earlier = f" in its {each.replace('_', ' ')}" if each != phase else ""
        survived = _survived(verdict, outcome)
        told = f"{describe_outcome(outcome)}{died_earlier}"
        return LimitTrial(
            limit_bytes=limit_bytes,
            survived=survived,
            why="; ".join(verdict.reasons) if survived is None else told,
            folder=measurement.folder.path.name,
            elapsed_s=0.0,
            starved=survived is False and outcome.programming == "timed_out" and not outcome.victims,
            nft_bytes_peak=outcome.nft_bytes_peak,
            charged_bytes_peak=outcome.charged_bytes_peak,
            unreclaimable_bytes_peak=outcome.unreclaimable_bytes_peak,
            programmed_after_s=outcome.programmed_after_s,
        )

    @property
    def _watch(self) -> Watch:
        """Until the first failure, or until it took far longer than where there was memory enough."""
        first = next((trial for trial in self.trials if trial.programmed_after_s is not None), None)
        if first is None or first.programmed_after_s is None:
            return Watch(failures=1)
        patience_s = DEATH_TIMEOUT_PER_PROGRAMMED * first.programmed_after_s
        return Watch(failures=1, timeout_s=DEATH_TIMEOUT_S + patience_s)

    def _dead(self, limit_bytes: int, why: str) -> LimitTrial:
        return LimitTrial(limit_bytes=limit_bytes, survived=False, why=why, folder="", elapsed_s=0.0)


def _survived(verdict: Verdict, outcome: Outcome) -> bool | None:
    """Whether the node did; None where that can't be told.

    What was not programmed in time starves, also where all its rules came in the end and it is unknown when.
    """
    if outcome.disturbed or (verdict.result == "unknown" and outcome.programming != "timed_out"):
        return None
    return verdict.result == "pass"


def _judged(measurement: Measurement) -> Verdict:
    try:
        return measurement.expect(SURVIVES)
    except VerdictError as error:
        return error.verdict
