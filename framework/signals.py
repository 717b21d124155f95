"""What ends a program from outside: every way of it lets the program remove what it made.

By default SIGTERM (a CI job that is cancelled) and SIGHUP (a closed terminal) end the process at once, and
everything would be left behind. Here they are Ctrl-C.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
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


@contextmanager
def removing(say: Callable[[str], None]) -> Iterator[None]:
    """Let nothing come between a program and what it removes in the body, but SIGKILL and who insists.

    The first Ctrl-C is answered with what a second one would do, which ends it.
    """
    before = {signum: signal.getsignal(signum) for signum in (*DEADLY_SIGNALS, signal.SIGINT)}

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, _interrupt)
        say("still removing what this run made; Ctrl-C once more leaves the rest to `kilonode clean`")

    for signum in DEADLY_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
