"""A thread that waits for files to become readable, and ends when told.

Everything live that is observed (kernel records, kernel log) arrives on a file descriptor. The thread sleeps
in poll(2) until there is something, so observing costs nothing while nothing happens, and an eventfd wakes it
to stop, so that stopping never waits for a time limit.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress


class Follower:
    """Calls ``on_readable`` in a thread of its own whenever one of ``fds`` can be read.

    An ``urgent`` one asks for real-time scheduling, for what is gone when one comes late.
    """

    def __init__(
        self, name: str, fds: Sequence[int], on_readable: Callable[[], None], *, urgent: bool = False
    ) -> None:
        self._urgent = urgent
        self._fds = tuple(fds)
        self._on_readable = on_readable
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End and join the thread; raises what ``on_readable`` raised, if it did. May be repeated."""
        if self._wake < 0:
            return
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._wake)
        self._wake = -1
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        if self._urgent:
            _become_urgent()
        poller = select.poll()
        for fd in (self._wake, *self._fds):
            poller.register(fd, select.POLLIN)
        try:
            while self._wake not in {fd for fd, _ in poller.poll()}:
                self._on_readable()
        except BaseException as error:
            self._error = error


def _become_urgent() -> None:
    """Run the calling thread before all ordinary ones; without CAP_SYS_NICE it stays as it is."""
    with suppress(PermissionError):
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_FIFO, os.sched_param(1))
