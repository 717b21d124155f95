"""The long-lived processes of a real node, and who starts them again.

With the restart policy ``none`` a process that ended stays ended. With ``production`` a thread looks ten
times a second, and starts it again after the delay that it would have in production. Each end is recorded, so
that a crash loop shows: how often, how far apart, how long nobody was there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from framework.log import get_logger
from framework.outcome import Restart
from framework.process import Daemon, describe_exit
from framework.realnode.restarts import CONTAINER, DAEMONS, SYSTEM_DAEMON, BackOff
from framework.spec import Ballast, RealNodeSpec
from framework.ticker import Ticker

log = get_logger(__name__)

LOOK_INTERVAL_S: Final = 0.1


@dataclass(frozen=True)
class Ended:
    """One end of a process, on CLOCK_BOOTTIME. ``restarted_s`` is None while its delay runs."""

    name: str
    pid: int
    exit_code: int
    ended_s: float
    delay_s: float
    restarted_s: float | None = None

    def record(self, zero_s: float) -> Restart:
        """On the clock whose zero is ``zero_s``."""
        return Restart(
            name=self.name,
            pid=self.pid,
            exit_code=self.exit_code,
            ended_at_s=self.ended_s - zero_s,
            delay_s=self.delay_s,
            restarted_at_s=None if self.restarted_s is None else self.restarted_s - zero_s,
        )


@dataclass
class _Supervised:
    start: Callable[[], Daemon]
    daemon: Daemon
    started_s: float
    unforgiven: int = 0
    ends: list[Ended] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        return bool(self.ends) and self.ends[-1].restarted_s is None


class Supervisor:
    """Starts processes, knows them by name, and restarts them where the node's policy says so."""

    def __init__(self, spec: RealNodeSpec) -> None:
        self._back_offs = {ballast.name: _back_off(ballast) for ballast in spec.ballast} | DAEMONS
        self._lock = threading.Lock()
        self._supervised: dict[str, _Supervised] = {}
        self._ticker: Ticker | None = None
        if spec.restart == "production":
            self._ticker = Ticker("kilonode-supervisor", LOOK_INTERVAL_S, self._look)
            self._ticker.start()

    @property
    def daemons(self) -> dict[str, Daemon]:
        """By name, in the order of their first start; the ones that ended too."""
        with self._lock:
            return {name: each.daemon for name, each in self._supervised.items()}

    @property
    def ends(self) -> tuple[Ended, ...]:
        """Every end that the restart policy saw, in order of time; none with the policy ``none``."""
        with self._lock:
            found = [end for each in self._supervised.values() for end in each.ends]
        return tuple(sorted(found, key=lambda end: end.ended_s))

    def start(self, name: str, start: Callable[[], Daemon]) -> Daemon:
        """Start a process, and look after it."""
        with self._lock:
            daemon = start()
            self._supervised[name] = _Supervised(start, daemon, _now_s())
            return daemon

    def release(self, name: str) -> Daemon:
        """Don't look after a process any longer, so that it can be ended."""
        with self._lock:
            return self._supervised.pop(name).daemon

    def stop(self) -> None:
        """End all, the last one first; nothing is started again."""
        if self._ticker is not None:
            self._ticker.stop()
        for daemon in reversed(self.daemons.values()):
            daemon.stop()

    def _look(self) -> None:
        with self._lock:
            for name, each in self._supervised.items():
                if each.waits:
                    self._restart_when_due(each)
                elif each.daemon.exit_code is not None:
                    self._note_end(name, each, each.daemon.exit_code)

    def _note_end(self, name: str, each: _Supervised, exit_code: int) -> None:
        now_s = _now_s()
        back_off = self._back_offs[name]
        if now_s - each.started_s >= back_off.forgiven_after_s:
            each.unforgiven = 0
        delay_s = back_off.delay_s(each.unforgiven)
        each.unforgiven += 1
        each.ends.append(Ended(name, each.daemon.pid, exit_code, now_s, delay_s))
        log.info("%s ended with %s, starts again in %g s", name, describe_exit(exit_code), delay_s)

    @staticmethod
    def _restart_when_due(each: _Supervised) -> None:
        end = each.ends[-1]
        if _now_s() - end.ended_s >= end.delay_s:
            each.daemon = each.start()
            each.started_s = _now_s()
            each.ends[-1] = replace(end, restarted_s=each.started_s)


def _back_off(ballast: Ballast) -> BackOff:
    return SYSTEM_DAEMON if ballast.kind == "system" else CONTAINER


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
