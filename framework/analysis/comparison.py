"""Did it get worse? Two runs, or a run and the last few of the same machine, measurement by measurement.

Compared is what was asked alike: the same test, node, workload and phase, at the same place in its test. A
figure has changed only beyond a relative *and* an absolute threshold, and beyond what the runs of the
baseline differ by among each other. Memory repeats to a few percent on any machine; times wander by 2x on one
and say nothing across two, so they are compared only where the machine is the same. A lower bound is compared
only as far as it goes: more than an exact figure is more for certain, less is nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal, NamedTuple

from framework.analysis.fates import BAD_FATES
from framework.analysis.table import FATE_WORDS, PROGRAMMING_WORDS, measurement_label
from framework.outcome import Environment, Measure, Outcome, Record, RunResult
from framework.spec import Spec
from framework.units import GIB, MIB, mib

Kind = Literal["memory", "count", "time"]
Direction = Literal["worse", "better", "other"]
Finding = Literal["worse", "better", "same", "nothing_compared"]

FORMAT: Final = 1
_NOT_ASKED: Final = frozenset({"fleet_nodes", "fleet_lease_s", "fleet_renewals_per_s", "fakes_not_ready"})
"""Parameters that say what the machine afforded, or what was found: no node's memory follows from them."""


class Threshold(Spec, frozen=True, kw_only=True):
    """A change counts beyond ``relative`` (a share) and ``absolute`` (in the figure's unit), both."""

    relative: float
    absolute: float


class Fingerprint(Record, frozen=True, kw_only=True):
    """What makes a machine the same for times. ``memory_gib`` is rounded: kernels reserve a little."""

    kernel: str
    cgroup_mode: str
    cpus: int
    cpu_model: str
    memory_gib: int
    distribution: str

    def __str__(self) -> str:
        return (
            f"kernel {self.kernel}, cgroup {self.cgroup_mode}, {self.cpus} CPUs ({self.cpu_model or '?'}), "
            f"{self.memory_gib} GiB, {self.distribution}"
        )


def fingerprint(environment: Environment) -> Fingerprint:
    """The machine of ``environment``."""
    return Fingerprint(
        kernel=environment.kernel,
        cgroup_mode=environment.cgroup_mode,
        cpus=environment.cpus,
        cpu_model=environment.cpu_model,
        memory_gib=round(environment.memory_bytes / GIB),
        distribution=environment.distribution,
    )


class Key(NamedTuple):
    """One measurement of a run: its test, its phase, and the how-manieth of these it was."""

    test_id: str
    phase: str
    number: int


class Change(Record, frozen=True, kw_only=True):
    """One figure, or one fact, that is not what it was.

    ``before_low`` and ``before_high`` enclose what the baseline saw; ``before`` is its middle. Bytes, counts
    or seconds by ``kind``; of a fact ``kind`` is None and only ``text`` tells.
    """

    label: str
    what: str
    kind: Kind | None
    direction: Direction
    text: str
    before: float | None = None
    before_low: float | None = None
    before_high: float | None = None
    after: float | None = None

    @property
    def relative(self) -> float | None:
        """By which share it grew; None for facts, and from 0."""
        if self.after is None or not self.before:
            return None
        return self.after / self.before - 1


class Comparison(Record, frozen=True, kw_only=True):
    """What changed from ``baseline_runs`` runs to one. ``figures`` counts what was compared.

    ``not_compared`` says what was not, and why; ``versions`` which programs are others.
    """

    format: int = FORMAT
    baseline_runs: int
    same_machine: bool
    measurements: int
    figures: int
    changes: tuple[Change, ...]
    not_compared: tuple[str, ...]
    versions: tuple[str, ...]

    @property
    def finding(self) -> Finding:
        """The worst of the changes."""
        if not self.figures:
            return "nothing_compared"
        directions = {change.direction for change in self.changes}
        if "worse" in directions:
            return "worse"
        return "better" if "better" in directions else "same"


@dataclass(frozen=True)
class _Metric:
    what: str
    kind: Kind
    threshold: Threshold
    read: Callable[[Outcome], Measure | float | int | None]


_NFT: Final = Threshold(relative=0.03, absolute=MIB)
"""nft's peak repeats to 1 %; at 10,000 endpoints of kube-proxy 1.37 slices come in other batches, for 5 % of
20 MiB."""
_NODE: Final = Threshold(relative=0.08, absolute=24 * MIB)
"""kube-proxy's garbage collector makes 5 % of a node: 1,812 to 1,898 MiB in four runs alike."""
_KERNEL: Final = Threshold(relative=0.05, absolute=2 * MIB)
_COUNT: Final = Threshold(relative=0.0, absolute=0.0)
_TIME: Final = Threshold(relative=1.0, absolute=0.5)
"""Times wander by 2 on a machine that does nothing else."""
_METRICS: Final = (
    _Metric("nft peak", "memory", _NFT, lambda o: o.nft_bytes_peak),
    _Metric("nft listing peak", "memory", _NFT, lambda o: o.nft_list_bytes_peak),
    _Metric("node peak", "memory", _NODE, lambda o: o.charged_bytes_peak),
    _Metric("unreclaimable peak", "memory", _NODE, lambda o: o.unreclaimable_bytes_peak),
    _Metric("kernel memory at the end", "memory", _KERNEL, lambda o: o.kernel_bytes_end),
    _Metric("chains", "count", _COUNT, lambda o: o.ruleset.chains if o.ruleset else None),
    _Metric("rules", "count", _COUNT, lambda o: o.ruleset.rules if o.ruleset else None),
    _Metric("elements", "count", _COUNT, lambda o: o.ruleset.elements if o.ruleset else None),
    _Metric("sync", "time", _TIME, lambda o: o.sync_s),
    _Metric("programmed after", "time", _TIME, lambda o: o.programmed_after_s),
)


def compare(baseline: Sequence[Sequence[RunResult]], run: Sequence[RunResult]) -> Comparison:
    """What changed from the runs of ``baseline`` to ``run``."""
    before: defaultdict[Key, list[RunResult]] = defaultdict(list)
    for each in baseline:
        for key, result in _keyed(each).items():
            before[key].append(result)
    after = _keyed(run)
    same_machine = len({*map(_machine, (*(r for each in baseline for r in each), *run))}) <= 1
    compared = _Compared(same_machine=same_machine)
    for key, result in after.items():
        compared.add(before.get(key, []), result)
    gone = [key for key in before if key not in after]
    return Comparison(
        baseline_runs=len(baseline),
        same_machine=same_machine,
        measurements=compared.measurements,
        figures=compared.figures,
        changes=tuple(sorted(compared.changes, key=_gravity)),
        not_compared=tuple(_left_out(compared, gone, same_machine=same_machine)),
        versions=tuple(_other_versions(baseline, run)),
    )


def _keyed(results: Sequence[RunResult]) -> Mapping[Key, RunResult]:
    found: dict[Key, RunResult] = {}
    for result in results:
        phase = str(result.parameters.get("phase", "first_programming"))
        number = 1
        while (key := Key(result.test_id, phase, number)) in found:
            number += 1
        found[key] = result
    return found


def _machine(result: RunResult) -> Fingerprint:
    return fingerprint(result.environment)


class _Compared:
    """Collects changes, measurement by measurement."""

    def __init__(self, *, same_machine: bool) -> None:
        self.changes: list[Change] = []
        self.measurements = 0
        self.figures = 0
        self.left_out: defaultdict[str, list[str]] = defaultdict(list)
        self._same_machine = same_machine

    def add(self, before: Sequence[RunResult], after: RunResult) -> None:
        label = measurement_label(after)
        alike = [result for result in before if _asked(result) == _asked(after)]
        measured = [result.outcome for result in alike if result.outcome is not None]
        if not before:
            self.left_out["not measured before"].append(label)
        elif not alike:
            self.left_out["something else was asked before"].append(label)
        elif not measured or after.outcome is None:
            self.left_out["it broke off before anything was measured"].append(label)
        else:
            self.measurements += 1
            self._add_facts(label, alike, after)
            for metric in _METRICS:
                self._add_figure(label, metric, measured, after.outcome)

    def _add_facts(self, label: str, before: Sequence[RunResult], after: RunResult) -> None:
        for what, read in (("outcome", _outcome_fact), ("fates", _fates_fact), ("verdict", _verdict_fact)):
            earlier = {read(result) for result in before}
            now = read(after)
            self.figures += 1
            if now not in earlier and len(earlier) == 1:
                (was,) = earlier
                self.changes.append(
                    Change(
                        label=label,
                        what=what,
                        kind=None,
                        direction=_fact_direction(was, now),
                        text=f"{was.words} -> {now.words}",
                    )
                )

    def _add_figure(self, label: str, metric: _Metric, before: Sequence[Outcome], after: Outcome) -> None:
        if metric.kind == "time" and not self._same_machine:
            return
        now = metric.read(after)
        earlier = [figure for figure in map(metric.read, before) if figure is not None]
        if now is None or not earlier:
            return
        direction = _direction([*map(_bounds, earlier)], _bounds(now), metric.threshold)
        if direction is None:
            self.left_out[f"{metric.what} is a lower bound"].append(label)
            return
        self.figures += 1
        if direction == "same":
            return
        values = [*map(_value, earlier)]
        self.changes.append(
            Change(
                label=label,
                what=metric.what,
                kind=metric.kind,
                direction="other" if metric.kind == "count" else direction,
                text=_words(values, _value(now), metric.kind),
                before=median(values),
                before_low=min(values),
                before_high=max(values),
                after=_value(now),
            )
        )


class _Interval(NamedTuple):
    """What is known of a figure: the truth is from ``low`` to ``high``."""

    low: float
    high: float


def _bounds(figure: Measure | float) -> _Interval:
    """A sampled figure counts as exact among its like: all were sampled at the same pace."""
    if isinstance(figure, Measure):
        is_open = figure.bound == "lower" and figure.source != "sample"
        return _Interval(figure.value, float("inf") if is_open else figure.value)
    return _Interval(figure, figure)


def _value(figure: Measure | float) -> float:
    return float(figure.value if isinstance(figure, Measure) else figure)


def _direction(
    before: Sequence[_Interval], after: _Interval, threshold: Threshold
) -> Literal["worse", "better", "same"] | None:
    """None where lower bounds leave it open."""
    middle = median(each.low for each in before)
    slack = max(threshold.absolute, threshold.relative * middle)
    ceiling = max(middle + slack, *(each.high for each in before))
    floor = min(middle - slack, *(each.low for each in before))
    if after.low > ceiling:
        return "worse"
    if any(each.high == float("inf") for each in before) or after.high == float("inf"):
        return "better" if after.high < floor else None
    return "better" if after.high < floor else "same"


class _Fact(NamedTuple):
    """Something that is not measured in a unit; more ``badness`` is worse."""

    words: str
    badness: int


_VERDICTS: Final = {"pass": 0, "unknown": 1, "fail": 2, "unchecked": 1}


def _outcome_fact(result: RunResult) -> _Fact:
    programming = result.outcome.programming if result.outcome else "timed_out"
    return _Fact(PROGRAMMING_WORDS[programming], int(programming != "programmed"))


def _fates_fact(result: RunResult) -> _Fact:
    fates = sorted({seen.fate for seen in result.outcome.fates} if result.outcome else set())
    return _Fact(", ".join(FATE_WORDS[fate] for fate in fates) or "none", len(BAD_FATES & set(fates)))


def _verdict_fact(result: RunResult) -> _Fact:
    verdict = result.verdict.result if result.verdict else "unchecked"
    return _Fact(verdict, _VERDICTS[verdict])


def _fact_direction(was: _Fact, now: _Fact) -> Direction:
    if was.badness == now.badness:
        return "other"
    return "worse" if now.badness > was.badness else "better"


def _asked(result: RunResult) -> tuple[tuple[str, object], ...]:
    return tuple(sorted((k, v) for k, v in result.parameters.items() if k not in _NOT_ASKED))


def figure(value: float | None, kind: Kind | None) -> str:
    """A figure of a change in words."""
    if value is None:
        return "?"
    if kind == "memory":
        return f"{mib(round(value))} MiB"
    return f"{value:,.0f}" if kind == "count" else f"{value:.2f} s"


def _words(before: Sequence[float], after: float, kind: Kind) -> str:
    middle, low, high = median(before), min(before), max(before)
    grown = f" ({after / middle - 1:+.1%})" if middle else ""
    spread = f", {figure(low, kind)} to {figure(high, kind)} before" if low != high else ""
    return f"{figure(middle, kind)} -> {figure(after, kind)}{grown}{spread}"


def _gravity(change: Change) -> tuple[int, int, float]:
    """Worse before other before better, facts before figures, the largest first."""
    order = ("worse", "other", "better").index(change.direction)
    return (order, int(change.kind is not None), -abs(change.relative or 0.0))


def _left_out(compared: _Compared, gone: Sequence[Key], *, same_machine: bool) -> Iterator[str]:
    if not same_machine:
        yield "times: the machines differ, and times say nothing across them"
    for why, labels in compared.left_out.items():
        others = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        yield f"{labels[0]}{others}: {why}"
    if gone:
        others = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        yield f"{gone[0].test_id}{others}: not measured this time"


def _other_versions(baseline: Sequence[Sequence[RunResult]], run: Sequence[RunResult]) -> Iterator[str]:
    """Programs that took part before and now, and are others now."""
    before = _components(result for each in baseline for result in each)
    after = _components(iter(run))
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            yield f"{name}: {', '.join(sorted(before[name]))} -> {', '.join(sorted(after[name]))}"


def _components(results: Iterator[RunResult]) -> Mapping[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for result in results:
        for part in result.environment.components:
            found[part.name].add(f"{part.version} ({part.sha256[:12] or part.source})")
    return found
