"""Fetching, shown: a live table on a terminal, one plain line every 15 s for each binary in a CI log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import rich.progress
from rich.console import Console

from framework.binaries.events import (
    Building,
    Done,
    Downloading,
    Event,
    Failed,
    FellBack,
    Progress,
    Queued,
    Waiting,
)
from framework.binaries.model import Request
from framework.errors import KilonodeError
from framework.units import mib

PLAIN_INTERVAL_S: Final = 15.0
LINE_CHARS_MAX: Final = 60


@contextmanager
def show_progress(console: Console, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Progress]:
    """A ``Progress`` for the time of the block; it prints nothing while nothing has to be fetched."""
    if not console.is_terminal:
        yield _PlainLines(console, clock)
        return
    table = rich.progress.Progress(
        rich.progress.SpinnerColumn(finished_text=" "),
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=20),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("{task.fields[doing]}", markup=False),
        console=console,
    )
    with table:
        yield _LiveTable(table)


def describe(event: Event) -> str:
    """One event in a few words, without the request's name."""
    match event:
        case Queued():
            words = "queued"
        case Waiting(reason=reason):
            words = f"waiting for {reason}"
        case Downloading(bytes_done=done, bytes_total=total):
            words = f"downloading {mib(done)} of {mib(total)} MiB"
        case FellBack(reason=reason):
            words = f"{reason}; building with Go instead"
        case Building(packages=packages, last_line=line):
            words = f"building, {packages} packages compiled, {line[:LINE_CHARS_MAX]}".rstrip(", ")
        case Done(binary=binary):
            words = f"ready ({binary.source}{f' with {binary.toolchain}' if binary.toolchain else ''})"
        case Failed(error=error):
            words = f"failed: {error.what if isinstance(error, KilonodeError) else repr(error)}"
    return words


@dataclass
class _PlainLines:
    """A change of state is printed at once, except for events that repeat: those wait for the interval."""

    console: Console
    clock: Callable[[], float]
    _started_s: dict[Request, float] = field(default_factory=dict)
    _printed: dict[Request, tuple[type[Event], float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: Event) -> None:
        with self._lock:
            now_s = self.clock()
            started_s = self._started_s.setdefault(event.request, now_s)
            kind, printed_s = self._printed.get(event.request, (None, now_s))
            repeats = kind is type(event) and now_s - printed_s < PLAIN_INTERVAL_S
            if repeats:
                return
            self._printed[event.request] = (type(event), now_s)
            self.console.print(
                f"{event.request}: {describe(event)} ({now_s - started_s:.0f} s)",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


@dataclass
class _LiveTable:
    table: rich.progress.Progress
    _tasks: dict[Request, rich.progress.TaskID] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: Event) -> None:
        with self._lock:
            task = self._tasks.get(event.request)
            if task is None:
                task = self.table.add_task(str(event.request), total=None, start=False, doing="")
                self._tasks[event.request] = task
        if not isinstance(event, Queued | Waiting):
            self.table.start_task(task)
        match event:
            case Downloading(bytes_done=done, bytes_total=total):
                self.table.update(task, total=total, completed=done)
            case Done():
                self.table.update(task, total=1, completed=1)
            case Failed():
                self.table.stop_task(task)
            case _:
                self.table.update(task, total=None)
        self.table.update(task, doing=describe(event))
