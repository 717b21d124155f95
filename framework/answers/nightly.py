"""The nightly job: measure, compare with the nights before, keep the history, and say why it is red.

Everything it does is the plain commands' work: the scenarios by pytest, the comparison with the last runs of
the same machine, the report. What is its own is the reason: one line, first in the summary, that tells a
reader who has ten seconds what happened.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import pytest

from framework.analysis.comparison import Comparison, compare
from framework.answers.answer import Answer
from framework.claims import load_claims
from framework.errors import BadInputError
from framework.outcome import RunResult
from framework.page import markdown, markdown_of_changes, report
from framework.report import (
    LATEST,
    finding_line,
    keep,
    last_alike,
    load_run,
    load_session,
    perf_data,
)
from framework.spec import Spec
from framework.units import GIB
from framework.versioned_file import nearest_there, now_utc, replace_file, this_command, write_versioned

FORMAT: Final = 1
Size = Literal["standard", "large"]
BASELINE_RUNS: Final = 5
HISTORY_RUNS: Final = 30
NIGHTLY_FILE: Final = "nightly.json"
SUMMARY_FILE: Final = "summary.md"
SUMMARY_BYTES_MAX: Final = 900_000
"""GitHub refuses a step's summary beyond 1 MiB."""


class Plan(Spec, frozen=True, kw_only=True):
    """What fits on a machine: the options of the scenarios, and the memory and disk that they take."""

    options: tuple[str, ...]
    memory_bytes: int
    what: str


PLANS: Final[dict[Size, Plan]] = {
    "standard": Plan(
        options=("--max-nodes", "10k"),
        memory_bytes=6 * GIB,
        what="the default scenarios up to 10,000 endpoints",
    ),
    "large": Plan(
        options=("--max-nodes", "100k"),
        memory_bytes=24 * GIB,
        what="the default scenarios up to 100,000 endpoints",
    ),
}


class NightlyResult(Answer, frozen=True, kw_only=True):
    """What a night found. ``reason`` is one line; ``passed`` is False for anything that is no pass."""

    size: Size
    passed: bool
    reason: str
    pytest_exit: int
    run: str
    comparison: Comparison | None


def run_nightly(
    size: Size, *, scenarios: Sequence[str], options: Sequence[str], runs: Path, history: Path, output: Path
) -> NightlyResult:
    """Measure and judge; everything is in ``output`` afterwards, and the run in ``history``.

    ``options`` go to pytest after those of the plan. pytest's own output goes to standard error.
    """
    for folder in (output, history):
        there = nearest_there(folder)
        if not there.is_dir():
            raise BadInputError(
                f"the folder can't be made: {there} is a file", where=str(folder), remedy="give another one"
            )
    for folder in (output, history):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(
                f"the folder can't be made: {error.strerror}", where=str(folder), remedy="give another one"
            ) from error
    arguments = [
        *scenarios,
        "-k",
        "scenario",
        "--strict-env",
        *PLANS[size].options,
        f"--runs-dir={runs}",
        f"--junit-xml={output / 'junit.xml'}",
        *options,
    ]
    before = _latest(runs)
    with _printing_to_stderr():
        exit_code = int(pytest.main(arguments))
    run = _latest(runs)
    results = load_run(run) if run is not None and run != before else ()
    comparison = None
    if run is not None and results:
        baseline = last_alike(history, results, at_most=BASELINE_RUNS, apart_from=run)
        comparison = compare(baseline, results) if baseline else None
    passed, reason = judge_night(exit_code, results, comparison)
    night = NightlyResult(
        format=FORMAT,
        made_utc=now_utc(),
        command=this_command(),
        size=size,
        passed=passed,
        reason=reason,
        pytest_exit=exit_code,
        run=run.name if run is not None and results else "",
        comparison=comparison,
    )
    write_versioned(output / NIGHTLY_FILE, night)
    replace_file(output / SUMMARY_FILE, _summary(night, run if results else None, results).encode())
    if run is not None and results:
        write_versioned(output / "perfdata.json", perf_data(results))
        keep(history, run, at_most=HISTORY_RUNS)
    return night


def judge_night(
    exit_code: int, results: Sequence[RunResult], comparison: Comparison | None
) -> tuple[bool, str]:
    """Whether the night is green, and why in one line: what failed before what got worse."""
    if broken := _not_passed(results) or _ended_badly(exit_code, results):
        return False, broken
    if comparison is None:
        return True, f"PASS: {len(results)} measurements; the first of this machine, nothing to compare with"
    if comparison.finding == "worse":
        return False, finding_line(comparison)
    return True, f"PASS: {len(results)} measurements; {finding_line(comparison)}"


def _not_passed(results: Sequence[RunResult]) -> str:
    failed = [result for result in results if result.verdict is None or result.verdict.result != "pass"]
    if not failed:
        return ""
    worst = min(failed, key=lambda result: result.verdict is None or result.verdict.result != "fail")
    verdict = worst.verdict
    why = verdict.reasons[0] if verdict is not None and verdict.reasons else "it broke off"
    word = verdict.result if verdict is not None else "unknown"
    more = f"; {len(failed) - 1} more are no pass" if len(failed) > 1 else ""
    return f"{word.upper()}: {worst.test_id}: {' '.join(why.split())}{more}"


_EXITS: Final = {
    pytest.ExitCode.TESTS_FAILED: "a test failed outside its measurements",
    pytest.ExitCode.INTERRUPTED: "it was interrupted",
    pytest.ExitCode.USAGE_ERROR: "pytest refused to start",
    pytest.ExitCode.NO_TESTS_COLLECTED: "no scenario was found",
}


def _ended_badly(exit_code: int, results: Sequence[RunResult]) -> str:
    if exit_code == pytest.ExitCode.OK:
        return "" if results else "FAIL: nothing was measured"
    words = {int(code): text for code, text in _EXITS.items()}
    return f"FAIL: {words.get(exit_code, f'pytest ended with status {exit_code}')}; its output says more"


def _summary(night: NightlyResult, run: Path | None, results: Sequence[RunResult]) -> str:
    parts = [f"**{night.reason}**\n"]
    if night.comparison is not None:
        parts.append(markdown_of_changes(night.comparison))
    if run is not None:
        parts.append(markdown(report(results, load_session(run), load_claims())))
    text = "\n".join(parts)
    if len(text.encode()) > SUMMARY_BYTES_MAX:
        text = (
            text.encode()[:SUMMARY_BYTES_MAX].decode(errors="ignore") + "\n\n(cut: the report has it all)\n"
        )
    return text


def _latest(runs: Path) -> Path | None:
    link = runs / LATEST
    return link.resolve() if link.exists() else None


@contextmanager
def _printing_to_stderr() -> Iterator[None]:
    """Standard output stays free for the answer, for programs that this one starts too."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def plan_of(size: str) -> Size:
    """``size`` as the name of a plan. Raises BadInputError for another."""
    for name in PLANS:
        if name == size:
            return name
    raise BadInputError(
        f"there is no plan {size!r}", where="--size", remedy=f"give one of {', '.join(PLANS)}"
    )
