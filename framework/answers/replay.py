"""A bundle run again elsewhere: what it says was found, beside what is found here.

Two things are run. The reproducer is nft alone in a fresh cgroup: the same program on the same input, whose
peak has to be the same to two percent wherever it runs. The measurement is the whole node again, and is
compared as any two runs are: memory and outcomes, and times only on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from framework.analysis import describe_measure, describe_outcome
from framework.analysis.comparison import Comparison, compare, fingerprint
from framework.answers.again import measured_again
from framework.answers.answer import Answer
from framework.binaries import Binaries
from framework.bundle import EARLIER, LOAD, REPRODUCER, Manifest, load_manifest
from framework.errors import BadInputError
from framework.lab import Lab
from framework.ledger import Ledger
from framework.outcome import Asked, Measure, Outcome, Record, RunResult
from framework.report import load_measurement, victims_counted
from framework.stages import Load, resident_peak
from framework.units import mib
from framework.versioned_file import now_utc, this_command

FORMAT: Final = 1
REPLAY_FILE: Final = "replay.json"
PEAK_TOLERANCE: Final = 0.02
"""nft is the same program on the same input; what is left are libraries of another build, and page sizes."""


class ReplayRow(Record, frozen=True, kw_only=True):
    """One thing, expected and found; ``alike`` is None where it can't be told or is not judged."""

    what: str
    expected: str
    found: str
    alike: bool | None


class ReplayResult(Answer, frozen=True, kw_only=True):
    """What a replay found. ``notes`` say what was not run, and why."""

    run_id: str
    test_id: str
    rows: tuple[ReplayRow, ...]
    comparison: Comparison | None
    notes: tuple[str, ...]

    @property
    def reproduced(self) -> bool | None:
        """Whether all that was judged is alike; None where nothing was."""
        judged = [row.alike for row in self.rows if row.alike is not None]
        return all(judged) if judged else None


def replay_reproducer(folder: Path, ledger: Ledger) -> tuple[ReplayRow, ...]:
    """nft's peak on an unpacked bundle's transactions, beside the measured node's and the twin's.

    Empty for a bundle without them. Raises BadInputError where they are not there, and what
    ``resident_peak`` raises.
    """
    manifest = load_manifest(folder)
    place = folder / REPRODUCER
    if manifest.twin is None:
        return ()
    load = Load(place / LOAD, tuple(sorted((place / EARLIER).glob("*.nft"))))
    if not load.transaction.is_file():
        raise BadInputError(
            f"the bundle holds no {REPRODUCER}/{LOAD}", where=manifest.test_id, remedy="ask for it again"
        )
    found = resident_peak(load, nft=Binaries().system("nft").path, ledger=ledger)
    return tuple(_peak_rows(manifest, found))


def _peak_rows(manifest: Manifest, found: Measure) -> Iterator[ReplayRow]:
    expected = {"nft alone, as measured": manifest.nft_bytes_peak}
    if manifest.twin is not None:
        expected["nft alone, as on the twin"] = manifest.twin.nft_bytes_peak
    for what, peak in expected.items():
        yield ReplayRow(
            what=what,
            expected=describe_measure(peak),
            found=f"{mib(found.value)} MiB{_difference(peak, found)}",
            alike=peaks_agree(peak, found),
        )


def peaks_agree(expected: Measure | None, found: Measure | None) -> bool | None:
    """Whether two peaks of nft are the same to ``PEAK_TOLERANCE``.

    More than a lower bound agrees with it; None where nothing is known, or two lower bounds leave it open.
    """
    if expected is None or found is None:
        return None
    if expected.bound == "lower":
        enough = found.value >= expected.value * (1 - PEAK_TOLERANCE)
        return True if enough else (None if found.bound == "lower" else False)
    if found.bound == "lower":
        return False if found.value > expected.value * (1 + PEAK_TOLERANCE) else None
    return abs(found.value - expected.value) <= PEAK_TOLERANCE * expected.value


def _difference(expected: Measure | None, found: Measure) -> str:
    if expected is None or "lower" in (expected.bound, found.bound):
        return ""
    return f" ({found.value / expected.value - 1:+.1%})"


@dataclass(frozen=True)
class MeasuredAgain:
    """A bundle's measurement made again: what changed, both outcomes in rows, and how it differs."""

    comparison: Comparison
    rows: tuple[ReplayRow, ...]
    notes: tuple[str, ...]


def replay_measurement(lab: Lab, folder: Path) -> MeasuredAgain:
    """Make the measurement of an unpacked bundle again.

    Raises BadInputError for one that does not say what was asked, and what measuring raises.
    """
    before = load_measurement(folder)
    asked = asked_of_replay(before)
    if asked.service is not None and asked.service.mode != "endpointslices":
        lab.grow_fleet(max(asked.fleet_nodes, asked.service.endpoints))
    elif asked.fleet_nodes:
        lab.grow_fleet(asked.fleet_nodes)
    with measured_again(lab, asked, asked.node, test_id=before.test_id, repro="kilonode replay") as again:
        after = again.measurement.result
    comparison = compare(
        [[msgspec.structs.replace(before, parameters=after.parameters, verdict=None)]],
        [msgspec.structs.replace(after, verdict=None)],
    )
    return MeasuredAgain(
        comparison, tuple(_outcome_rows(before, after, comparison)), tuple(_notes(before, after))
    )


def asked_of_replay(before: RunResult) -> Asked:
    """What is measured again. Raises BadInputError as ``replay_measurement`` does, which needs a lab."""
    if before.asked is None:
        raise BadInputError(
            "the bundle does not say all that was asked: an older kilonode measured it",
            where=before.test_id,
            remedy="give --reproducer-only",
        )
    return before.asked


UNKNOWN: Final = "unknown"
_FACTS: Final[tuple[tuple[str, Callable[[Outcome], str]], ...]] = (
    ("outcome", describe_outcome),
    ("killed, in order", lambda outcome: ", ".join(victims_counted(outcome.victims)) or "nobody"),
    ("served", lambda outcome: outcome.served or UNKNOWN),
)
_PEAKS: Final[tuple[tuple[str, Callable[[Outcome], Measure | None]], ...]] = (
    ("nft peak", lambda outcome: outcome.nft_bytes_peak),
    ("node peak", lambda outcome: outcome.charged_bytes_peak),
    ("unreclaimable peak", lambda outcome: outcome.unreclaimable_bytes_peak),
)


def _outcome_rows(before: RunResult, after: RunResult, comparison: Comparison) -> Iterator[ReplayRow]:
    expected, found = before.outcome, after.outcome
    if expected is None or found is None:
        return
    changed = {change.what for change in comparison.changes}
    for what, words in _FACTS:
        told = what != "killed, in order" and UNKNOWN not in (words(expected), words(found))
        alike = words(expected) == words(found) if told else None
        yield ReplayRow(what=what, expected=words(expected), found=words(found), alike=alike)
    open_bounds = " ".join(comparison.not_compared)
    for what, read in _PEAKS:
        told = None not in (read(expected), read(found)) and f"{what} is a lower bound" not in open_bounds
        yield ReplayRow(
            what=what,
            expected=describe_measure(read(expected)),
            found=describe_measure(read(found)),
            alike=what not in changed if told else None,
        )
    if comparison.same_machine:
        told = None not in (expected.sync_s, found.sync_s)
        yield ReplayRow(
            what="sync",
            expected=_seconds(expected.sync_s),
            found=_seconds(found.sync_s),
            alike="sync" not in changed if told else None,
        )


def _seconds(time_s: float | None) -> str:
    return "-" if time_s is None else f"{time_s:.2f} s"


def _notes(before: RunResult, after: RunResult) -> Iterator[str]:
    """How the replay differs from what it replays."""
    asked = before.asked
    if asked is not None and asked.together > 1:
        yield f"it was measured beside {asked.together - 1} other real nodes, and alone here"
    cluster = before.parameters.get("cluster")
    if cluster != after.parameters.get("cluster"):
        yield f"it was measured on a cluster of the kind {cluster}, here on an embedded one"
    there, here = fingerprint(before.environment), fingerprint(after.environment)
    if there != here:
        yield f"it was measured on {there}; here is {here}"


def replay_result(folder: Path, rows: Sequence[ReplayRow], again: MeasuredAgain | None) -> ReplayResult:
    """The answer, of what was run: the reproducer's ``rows``, and the measurement unless left out."""
    manifest = load_manifest(folder)
    notes = list(again.notes) if again is not None else ["the measurement was not made again, as asked"]
    if manifest.twin is None:
        notes.append("the bundle has no reproducer: it was made without a twin node")
    return ReplayResult(
        format=FORMAT,
        made_utc=now_utc(),
        command=this_command(),
        run_id=manifest.run_id,
        test_id=manifest.test_id,
        rows=(*rows, *(again.rows if again is not None else ())),
        comparison=again.comparison if again is not None else None,
        notes=tuple(notes),
    )
