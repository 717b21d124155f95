"""What ends a program from outside: every way of it lets the program remove what it made.

By default SIGTERM (a CI job that is cancelled) and SIGHUP (a closed terminal) end the process at once, and
everything would be left behind. Here they are Ctrl-C.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

DEADLY_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt. Where somebody ignores one (nohup) or handles it, that
    stays."""
    before = {signum: signal.getsignal(signum) for signum in DEADLY_SIGNALS}
    for signum, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(signum, _interrupt)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def ignore_deadly_signals() -> None:
    """Let nothing but SIGKILL come between a program and what it removes."""
    for signum in DEADLY_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
