"""A thread that acts at a fixed rate without drifting.

The n-th call is due n intervals after the first, however long calls take; a call that overruns skips the
moments it missed instead of hurrying after them, so a loaded machine gets fewer calls, never a burst.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Ticker:
    """Calls ``act`` every ``interval_s`` in a thread of its own. ``cpu_s`` is what that cost so far."""

    def __init__(self, name: str, interval_s: float, act: Callable[[], None]) -> None:
        self.cpu_s = 0.0
        self._interval_s = interval_s
        self._act = act
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End and join the thread; raises what ``act`` raised, if it did. May be repeated."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        start_s = time.monotonic()
        due = 0
        try:
            while not self._stop.wait(start_s + due * self._interval_s - time.monotonic()):
                self._act()
                self.cpu_s = time.thread_time()
                due = max(due + 1, int((time.monotonic() - start_s) / self._interval_s))
        except BaseException as error:
            self._error = error


class Ticking:
    """What a ticker does while it is entered; a subclass sets ``_ticker``."""

    _ticker: Ticker

    @property
    def cpu_s(self) -> float:
        """CPU time that it cost so far."""
        return self._ticker.cpu_s

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ticker.stop()
