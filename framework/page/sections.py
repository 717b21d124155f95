"""What a report shows, as data: from results to tables and series, before anything is drawn.

The page and its Markdown are two renderings of this, so that they can't disagree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from framework.analysis import (
    bounded_mib,
    describe_outcome,
    describe_ready,
    measurement_label,
)
from framework.claims import Claims
from framework.outcome import Bound, Outcome, Result, RunResult
from framework.page.timeline import Timeline, timeline
from framework.report import Session, asks_who_dies, machine_lines, victims_counted
from framework.spec import version_order
from framework.units import mib

TIMELINES_MAX: Final = 6
"""Each takes a screen; all others are in the table, and any can be had by a report of its own folder."""
KILLS_MAX: Final = 20
"""Rows of a table; victims are counted by name among those who die."""
VERDICTS: Final[tuple[Result, ...]] = ("fail", "unknown", "pass")


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A table: ``rows`` of texts under ``headers``; ``numeric`` are the columns that are numbers."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class LadderPoint:
    """The largest exact nft peak of one size, or the largest lower bound where nft was killed each time."""

    endpoints: int
    nft_bytes: int
    bound: Bound


@dataclass(frozen=True, kw_only=True)
class ClaimMark:
    """What was stated of nft's memory at one size; ``high_bytes`` is None where no end was stated."""

    endpoints: int
    low_bytes: float
    high_bytes: float | None
    says: str


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """nft's peak by endpoints, for each kube-proxy, oldest first, with what was stated beside it."""

    by_kube_proxy: Mapping[str, tuple[LadderPoint, ...]]
    claims: tuple[ClaimMark, ...]
    table: Cells


@dataclass(frozen=True, kw_only=True)
class MemoryOverTime:
    """One measurement's memory over time."""

    label: str
    outcome: str
    timeline: Timeline
    table: Cells


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that is shown of a run, or of one measurement."""

    title: str
    command: str
    started: str
    counts: Mapping[Result, int]
    verdicts: Cells
    results: tuple[Result, ...]
    ladder: Ladder | None
    over_time: tuple[MemoryOverTime, ...]
    not_drawn: int
    deaths: Cells | None
    traffic: Cells | None
    fidelity: Cells
    versions: Cells
    machine: tuple[str, ...]


def report(results: Sequence[RunResult], session: Session | None, claims: Claims) -> Report:
    """The report of ``results``, in the order of measuring."""
    verdicts = tuple(_verdict(result) for result in results)
    sampled = _over_time(results)
    drawn = sampled[:TIMELINES_MAX]
    measured = [result for result in results if result.outcome is not None]
    return Report(
        title=session.run_id if session is not None else (results[0].test_id if results else "nothing"),
        command=session.command if session is not None else "",
        started=results[0].started_utc if results else (session.started_utc if session else ""),
        counts=Counter(verdicts),
        verdicts=_verdict_cells(results),
        results=tuple(_verdict(result) for result in _by_gravity(results)),
        ladder=_ladder(measured, claims),
        over_time=drawn,
        not_drawn=len(sampled) - len(drawn),
        deaths=_deaths([result for result in measured if asks_who_dies(result)]),
        traffic=_traffic(measured),
        fidelity=_fidelity(results),
        versions=_versions(results),
        machine=tuple(dict.fromkeys(line for r in results for line in machine_lines(r.environment))),
    )


def _verdict(result: RunResult) -> Result:
    return result.verdict.result if result.verdict is not None else "unknown"


def _by_gravity(results: Sequence[RunResult]) -> list[RunResult]:
    """Fails first, then unknowns; else in the order of measuring."""
    return sorted(results, key=lambda result: VERDICTS.index(_verdict(result)))


def _verdict_cells(results: Sequence[RunResult]) -> Cells:
    rows = []
    for result in _by_gravity(results):
        outcome = result.outcome
        reasons = result.verdict.reasons if result.verdict is not None else ("it broke off",)
        rows.append(
            (
                _verdict(result),
                measurement_label(result),
                "nothing was measured" if outcome is None else describe_outcome(outcome),
                bounded_mib(outcome.nft_bytes_peak) if outcome else "-",
                bounded_mib(outcome.charged_bytes_peak) if outcome else "-",
                bounded_mib(outcome.unreclaimable_bytes_peak) if outcome else "-",
                "-" if outcome is None or outcome.sync_s is None else f"{outcome.sync_s:.2f}",
                "; ".join(reasons),
            )
        )
    return Cells(
        headers=(
            "verdict",
            "measurement",
            "outcome",
            "nft peak MiB",
            "node peak MiB",
            "unreclaimable MiB",
            "sync s",
            "why",
        ),
        rows=tuple(rows),
        numeric=frozenset({3, 4, 5, 6}),
    )


def _is_plain(result: RunResult) -> bool:
    outcome = result.outcome
    return outcome is not None and outcome.phase == "first_programming" and not outcome.shape


def _ladder(results: Sequence[RunResult], claims: Claims) -> Ladder | None:
    """None where no plain Service was programmed."""
    peaks: defaultdict[str, dict[int, LadderPoint]] = defaultdict(dict)
    for result in filter(_is_plain, results):
        outcome = result.outcome
        if outcome is None or outcome.nft_bytes_peak is None:
            continue
        peak = outcome.nft_bytes_peak
        point = LadderPoint(endpoints=outcome.endpoints, nft_bytes=peak.value, bound=peak.bound)
        known = peaks[outcome.kube_proxy].get(outcome.endpoints)
        if known is None or (known.bound, -known.nft_bytes) > (point.bound, -point.nft_bytes):
            peaks[outcome.kube_proxy][outcome.endpoints] = point
    if not peaks:
        return None
    versions = sorted(peaks, key=version_order)
    sizes = sorted({size for points in peaks.values() for size in points})
    marks = tuple(_claim_marks(claims))
    rows = []
    for size in sizes:
        found = [_point_words(peaks[version].get(size)) for version in versions]
        stated = "; ".join(mark.says for mark in marks if mark.endpoints == size)
        rows.append((f"{size:,}", *found, stated or "-"))
    return Ladder(
        by_kube_proxy={
            version: tuple(peaks[version][size] for size in sorted(peaks[version])) for version in versions
        },
        claims=marks,
        table=Cells(
            headers=("endpoints", *(f"nft MiB, {version}" for version in versions), "the article states"),
            rows=tuple(rows),
            numeric=frozenset(range(len(versions) + 1)),
        ),
    )


def _point_words(point: LadderPoint | None) -> str:
    if point is None:
        return "-"
    return f"{'>=' if point.bound == 'lower' else ''}{mib(point.nft_bytes)}"


def _claim_marks(claims: Claims) -> Iterator[ClaimMark]:
    for claim in claims.claims:
        if claim.measure != "nft_bytes" or claim.endpoints is None:
            continue
        low, high = claim.expected.bounds(0.0)
        yield ClaimMark(
            endpoints=claim.endpoints,
            low_bytes=low,
            high_bytes=None if high == float("inf") else high,
            says=claim.says,
        )


def telling_order(result: RunResult) -> tuple[int, int, int]:
    """Sorts measurements by how much they tell: what is no pass, then deaths, then the largest nodes."""
    outcome = result.outcome
    killed = len(outcome.oom_victims) if outcome else 0
    peak = outcome.charged_bytes_peak if outcome else None
    return (VERDICTS.index(_verdict(result)), -min(killed, 1), -(peak.value if peak else 0))


def _over_time(results: Sequence[RunResult]) -> tuple[MemoryOverTime, ...]:
    """Of every measurement that was sampled, what tells most first."""
    found = []
    for result in sorted(results, key=telling_order):
        over_time = timeline(result.evidence) if result.evidence is not None else None
        if over_time is not None and result.outcome is not None:
            found.append(
                MemoryOverTime(
                    label=measurement_label(result),
                    outcome=describe_outcome(result.outcome),
                    timeline=over_time,
                    table=_moments(over_time, result.outcome),
                )
            )
    return tuple(found)


def _moments(over_time: Timeline, outcome: Outcome) -> Cells:
    """The layers before the phase, at the fullest moment, and at the end; then what happened."""
    total = [sum(amounts) for amounts in zip(*over_time.layers.values(), strict=True)]
    before = max((i for i, at_s in enumerate(over_time.at_s) if at_s <= 0), default=0)
    moments = (before, total.index(max(total)), len(total) - 1)
    rows = [
        (name, *(mib(amounts[moment]) for moment in moments)) for name, amounts in over_time.layers.items()
    ]
    rows.append(("all", *(mib(total[moment]) for moment in moments)))
    rows.append(("limit", *[mib(over_time.limit_bytes)] * 3))
    rows += [
        (f"killed: {kill.victim}", f"{kill.at_s:.1f} s", f"{mib(kill.memory_bytes)} MiB held", "")
        for kill in over_time.kills[:KILLS_MAX]
    ]
    if len(over_time.kills) > KILLS_MAX:
        more = over_time.kills[KILLS_MAX:]
        rows.append((f"killed: {len(more)} more", f"until {more[-1].at_s:.1f} s", "", ""))
    failed = sum(sync.failed for sync in over_time.syncs)
    rows.append(("syncs", f"{len(over_time.syncs)}", f"{failed} failed", describe_ready(outcome)))
    return Cells(
        headers=(
            "MiB",
            *(
                f"{name} ({round(over_time.at_s[moment], 1) or 0.0:.1f} s)"
                for name, moment in zip(("before", "fullest", "end"), moments, strict=True)
            ),
        ),
        rows=tuple(rows),
        numeric=frozenset({1, 2, 3}),
    )


def _deaths(results: Sequence[RunResult]) -> Cells | None:
    if not results:
        return None
    rows = []
    for result in results:
        outcome = result.outcome
        if outcome is None:
            continue
        rows.append(
            (
                measurement_label(result),
                str(result.parameters.get("oom_policy", "?")),
                ", ".join(victims_counted(outcome.victims)) or "nobody",
                ", ".join(outcome.survivors) or "nobody",
                outcome.served or "unknown",
                describe_ready(outcome),
                _verdict(result),
            )
        )
    return Cells(
        headers=("node", "OOM scores", "killed, in order", "survived", "served", "node status", "verdict"),
        rows=tuple(rows),
    )


def _traffic(results: Sequence[RunResult]) -> Cells | None:
    rows = []
    for result in results:
        outcome = result.outcome
        if outcome is None or outcome.traffic_after is None:
            continue
        during, after = outcome.traffic_during, outcome.traffic_after
        rows.append(
            (
                measurement_label(result),
                "-" if during is None or during.success is None else f"{during.success:.1%}",
                "-" if after.success is None else f"{after.success:.1%}",
                f"{after.attempts:,}",
                "-" if after.connect_s_p50 is None else f"{after.connect_s_p50 * 1e6:,.0f}",
                "-" if after.connect_s_p99 is None else f"{after.connect_s_p99 * 1e6:,.0f}",
                f"{after.backends:,} ({after.backends_expected:,.0f})",
                outcome.served or "unknown",
            )
        )
    if not rows:
        return None
    return Cells(
        headers=(
            "measurement",
            "served while programming",
            "served after",
            "attempts",
            "p50 us",
            "p99 us",
            "endpoints that answered (expected)",
            "served",
        ),
        rows=tuple(rows),
        numeric=frozenset({1, 2, 3, 4, 5, 6}),
    )


def _fidelity(results: Sequence[RunResult]) -> Cells:
    """Each deviation once; where its words differ between measurements, those of the first."""
    first = {item.id: item for result in reversed(results) for item in result.fidelity}
    times = Counter(item.id for result in results for item in result.fidelity)
    return Cells(
        headers=("deviation", "what differs from production", "what that may change", "measurements"),
        rows=tuple((name, first[name].what, first[name].effect, f"{times[name]}") for name in sorted(first)),
        numeric=frozenset({3}),
    )


def _versions(results: Sequence[RunResult]) -> Cells:
    parts = {part for result in results for part in result.environment.components}
    return Cells(
        headers=("program", "version", "source", "toolchain", "sha256"),
        rows=tuple(
            (part.name, part.version, part.source, part.toolchain or "-", part.sha256)
            for part in sorted(parts, key=lambda part: (part.name, version_order(part.version)))
        ),
    )
