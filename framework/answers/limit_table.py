"""The answer of a limit search, for eyes: its edge in a sentence, and every trial below."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from framework.analysis import PHASE_WORDS, bounded_mib, describe_ballast
from framework.analysis.limit_search import LimitEdge, LimitTrial
from framework.answers.limit import DEATH_TIMEOUT_PER_PROGRAMMED, DEATH_TIMEOUT_S, LimitResult
from framework.report import basis_lines
from framework.units import mib

_WORDS: Final = {True: ("survived", "green"), False: ("died", "red"), None: ("unknown", "yellow")}
_STARVED: Final = ("starved", "red")


@dataclass(frozen=True)
class LimitTable:
    """A rich renderable of a limit search, complete or not."""

    result: LimitResult

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del options
        style = box.ROUNDED if console.is_terminal else box.ASCII
        yield _table(self.result, style)
        yield from (Text(line, "bold") for line in answer_lines(self.result))
        for line in _notes(self.result):
            yield Text(line, "dim")


def trial_line(trial: LimitTrial) -> str:
    """One trial in one line."""
    return f"{mib(trial.limit_bytes)} MiB: {_word(trial)[0]}, {trial.why} ({trial.elapsed_s:.0f} s)"


def _word(trial: LimitTrial) -> tuple[str, str]:
    return _STARVED if trial.starved else _WORDS[trial.survived]


def answer_lines(result: LimitResult) -> Iterator[str]:
    """The answer in sentences."""
    asked, found = result.asked, result.edge
    case = (
        f"{asked.endpoints:,} endpoints, kube-proxy {asked.kube_proxy}, {PHASE_WORDS[asked.phase]}, "
        f"ballast {describe_ballast(asked.ballast) or 'none'}"
    )
    yield case
    if found.surviving_bytes is None:
        yield f"No limit survived: the node died with {mib(found.killing_bytes)} MiB."
        return
    yield (
        f"Smallest limit that survived: {mib(found.surviving_bytes)} MiB "
        f"({found.surviving_trials} of {found.surviving_trials} trials)."
    )
    if found.killing_bytes is None:
        yield "No limit killed or starved, down to the smallest that a node can have."
    else:
        starved = sum(trial.starved for trial in result.trials if trial.limit_bytes == found.killing_bytes)
        yield (
            f"Largest limit that killed or starved: {mib(found.killing_bytes)} MiB "
            f"({found.killing_deaths} of {found.killing_trials} trials"
            f"{f', {starved} of them starved' if starved else ''})."
        )
    untold = sum(trial.survived is None for trial in result.trials)
    spread = f"{_chance(found)}{f', {untold} told nothing' if untold else ''}"
    yield (
        f"{len(result.trials)} trials, resolution {mib(asked.search.resolution_bytes)} MiB; {spread}"
        f"{_peaks(result)}."
    )
    if not result.complete:
        yield "The search was interrupted: the edge may lie elsewhere between these."


def _chance(found: LimitEdge) -> str:
    """Which limits now killed or starved and now did not."""
    low, high = found.lowest_survived_bytes, found.killing_bytes
    if low is None or high is None or low > high:
        return "no limit did both"
    if low == high:
        return f"{mib(high)} MiB now did and now did not"
    return f"chance decided from {mib(low)} to {mib(high)} MiB"


def _peaks(result: LimitResult) -> str:
    peaks = [
        trial.nft_bytes_peak.value
        for trial in result.trials
        if trial.survived and trial.nft_bytes_peak is not None
    ]
    if not peaks:
        return ""
    low, high = mib(min(peaks)), mib(max(peaks))
    return f"; survivors' nft peaked at {low if low == high else f'{low} to {high}'} MiB"


def _table(result: LimitResult, style: box.Box) -> Table:
    table = Table(box=style, title="Trials, lowest limit first", title_justify="left", title_style="bold")
    for header in ("limit\nMiB", "nft\npeak\nMiB", "node peak\n(unrecl.)\nMiB", "took\ns"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("outcome", min_width=20)
    for trial in sorted(result.trials, key=lambda each: each.limit_bytes):
        word, colour = _word(trial)
        table.add_row(
            mib(trial.limit_bytes),
            bounded_mib(trial.nft_bytes_peak),
            f"{bounded_mib(trial.charged_bytes_peak)} ({bounded_mib(trial.unreclaimable_bytes_peak)})",
            f"{trial.elapsed_s:.0f}",
            Text.assemble((word, colour), f": {trial.why}"),
        )
    return table


def _notes(result: LimitResult) -> Iterator[str]:
    yield (
        "Survived: programmed, Ready throughout, and nothing was killed. Died: nft was killed once, or "
        "worse. Starved: nothing was killed, but it was not programmed in "
        f"{DEATH_TIMEOUT_S:.0f} s and {DEATH_TIMEOUT_PER_PROGRAMMED:.0f} times what the highest limit took."
    )
    yield from basis_lines([result.environment], result.fidelity)
