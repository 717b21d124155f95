"""Steps that follow one another, shown: a spinner for the one under way, seconds for those that ended."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.status import Status


class StepDisplay:
    """Called with the name of each step when it begins; a context manager, at whose end the last one ends.

    A step that an exception ended is not shown as done.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._step = ""
        self._started_s = 0.0

    def __call__(self, step: str) -> None:
        self._end(done=True)
        self._step, self._started_s = step, time.monotonic()
        self._status = self._console.status(step)
        self._status.start()

    def __enter__(self) -> StepDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(done=kind is None)

    def _end(self, *, done: bool) -> None:
        if self._status is None:
            return
        self._status.stop()
        self._status = None
        if done:
            elapsed_s = time.monotonic() - self._started_s
            self._console.print(f"{self._step}: {elapsed_s:.0f} s", highlight=False, markup=False)
