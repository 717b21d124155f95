"""The phases of a run, live.

Whoever runs a measurement tells a ``Reporter`` that a phase started, advanced or ended, and nothing else; a
reporter knows nothing about clusters. ``PhaseDisplay`` is the one for people. On a terminal it keeps a small
live table; in a CI log, where nothing can be redrawn, it writes one line when a phase starts or ends and at
most one line of progress in ``PROGRESS_INTERVAL_S``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

PhaseName = Literal[
    "trials",
    "binaries",
    "cluster",
    "fleet",
    "leases",
    "node",
    "baseline",
    "workload",
    "programming",
    "evidence",
    "profile",
    "checks",
    "teardown",
]
PROGRESS_INTERVAL_S: Final = 15.0
REDRAWS_PER_S: Final = 4


class Reporter(Protocol):
    """Hears about the phases of a run. ``total`` and ``done`` count whatever the phase counts."""

    def phase_started(self, name: PhaseName, detail: str, total: int | None = None) -> None: ...

    def phase_advanced(self, name: PhaseName, done: int) -> None: ...

    def phase_ended(self, name: PhaseName, ok: bool, detail: str) -> None: ...


@dataclass
class _Phase:
    name: PhaseName
    detail: str
    total: int | None
    started_s: float
    done: int = 0
    ended_s: float | None = None
    ok: bool | None = None
    said_s: float = 0.0

    def elapsed_s(self, now_s: float) -> float:
        return (now_s if self.ended_s is None else self.ended_s) - self.started_s

    def eta_s(self, now_s: float) -> float | None:
        """Seconds left at the mean pace so far; None without a total or without progress."""
        if not self.total or not self.done or self.ended_s is not None:
            return None
        return max(0, self.total - self.done) * self.elapsed_s(now_s) / self.done

    def count(self) -> str:
        if self.total is None:
            return f"{self.done:,}" if self.done else ""
        return f"{self.done:,}/{self.total:,}"


class PhaseDisplay:
    """A Reporter that shows phases on ``console``; a context manager, so that a live table is always closed.

    Phases may be reported from any thread. A phase that starts again replaces its earlier row.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._lock = threading.RLock()
        self._phases: dict[PhaseName, _Phase] = {}
        self._live = (
            Live(
                console=console,
                get_renderable=self._table,
                refresh_per_second=REDRAWS_PER_S,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            if console.is_terminal
            else None
        )

    def __enter__(self) -> PhaseDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def phase_started(self, name: PhaseName, detail: str, total: int | None = None) -> None:
        with self._lock:
            now_s = self._clock()
            self._phases.pop(name, None)
            self._phases[name] = _Phase(name, detail, total, started_s=now_s, said_s=now_s)
            self._say(f"{name} started{f': {detail}' if detail else ''}")

    def phase_advanced(self, name: PhaseName, done: int) -> None:
        with self._lock:
            phase = self._phases.get(name)
            if phase is None:
                return
            phase.done = done
            now_s = self._clock()
            if now_s - phase.said_s >= PROGRESS_INTERVAL_S:
                phase.said_s = now_s
                self._say(f"{name} {phase.count()}, {duration(phase.elapsed_s(now_s))}{_left(phase, now_s)}")

    def phase_ended(self, name: PhaseName, ok: bool, detail: str) -> None:
        with self._lock:
            phase = self._phases.get(name)
            if phase is None:
                return
            phase.ended_s, phase.ok = self._clock(), ok
            phase.detail = detail or phase.detail
            took = duration(phase.elapsed_s(phase.ended_s))
            self._say(f"{name} {'done' if ok else 'FAILED'} after {took}{f': {detail}' if detail else ''}")

    def _say(self, line: str) -> None:
        """One plain line where nothing can be redrawn."""
        if self._live is None:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        for justify in ("left", "left", "right", "right", "left"):
            table.add_column(justify=justify, no_wrap=True)
        with self._lock:
            now_s = self._clock()
            for phase in self._phases.values():
                table.add_row(*_cells(phase, now_s))
        return table


def _cells(phase: _Phase, now_s: float) -> tuple[Text, ...]:
    mark, style = {None: ("...", "cyan"), True: ("ok", "green"), False: ("FAILED", "red")}[phase.ok]
    return (
        Text(mark, style),
        Text(phase.name, "bold" if phase.ok is None else ""),
        Text(duration(phase.elapsed_s(now_s))),
        Text(phase.count()),
        Text(f"{phase.detail}{_left(phase, now_s)}", "dim" if phase.ok else ""),
    )


def _left(phase: _Phase, now_s: float) -> str:
    eta_s = phase.eta_s(now_s)
    return "" if eta_s is None else f", {duration(eta_s)} left"


def duration(seconds: float) -> str:
    """``0.2 s``, ``59 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
