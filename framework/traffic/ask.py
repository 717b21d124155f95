"""A program, run inside a client's network namespace: asks one address again and again, and says how it went.

    python -S -E ask.py ADDRESS PORT PROTOCOL PER_S TIMEOUT_S

A line for each attempt: when it began (CLOCK_BOOTTIME, s), how long it took (s), the backend that answered
or "-", and why it failed, if it did. Attempts are begun on a fixed schedule and don't wait for each other, so
that an outage shows as as many failures as its length; a moment that was missed is not made up for.

What is measured is the network, not this process or the one that answers. A TCP connection is served when it
stands: the kernels do that alone. Its time is the client kernel's own, from SYN to SYN-ACK (TCP_INFO),
however late this process looks. A UDP datagram is served when its answer was read; its time has both
processes in it. What came while this one was kept waiting has come, and it runs before others where it may:
by its nice value, because with CONFIG_RT_GROUP_SCHED real-time processes stood still for a second and more on
busy CPUs, where none with a nice value of -20 waited for 0.2 s (November 2026, kernel 6.18).

Each attempt has a source port that no other had for long, by the clock: an entry of connection tracking that
an earlier attempt left (for two minutes at most) would send it where that one went, whatever the rules say.

Ends at SIGTERM. Standard library only, because it is run as a file of its own.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import sys
import time
from collections import deque
from contextlib import suppress

WHY = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ETIMEDOUT: "timeout",
}
NAME_BYTES_MAX = 64
PORTS = range(1024, 65536)
PORTS_TRIED = 100
NICE_MIN = -20
_PORT_IN_USE = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
_INFO_BYTES = 104
_INFO_RTT = slice(68, 72)
_INFO_RETRANSMITTED = slice(100, 104)
"""struct tcp_info of linux/tcp.h: tcpi_rtt in us, after one sample that sample, and tcpi_total_retrans."""


class Attempt:
    """One attempt. When it ``ended`` it was served, unless it has a ``why``."""

    def __init__(self, asking: socket.socket) -> None:
        self.asking = asking
        self.ended = False
        self.deadline_s = 0.0
        self._at_s = 0.0
        self._begun_s = 0.0
        self._elapsed_s: float | None = None
        self._backend = "-"
        self._why = ""

    @property
    def is_tcp(self) -> bool:
        return self.asking.type is socket.SOCK_STREAM

    def begin(self, source_port: int, target: tuple[str, int], timeout_s: float) -> bool:
        """False when the source port is in use."""
        self.asking.setblocking(False)
        self.asking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.asking.bind(("", source_port))
        except OSError as error:
            if error.errno not in _PORT_IN_USE:
                raise
            return False
        self._at_s, self._begun_s = time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic()
        self.deadline_s = self._begun_s + timeout_s
        refused = self.asking.connect_ex(target)
        if refused in _PORT_IN_USE:
            return False
        if refused not in (0, errno.EINPROGRESS):
            self._end(refused)
        elif not self.is_tcp:
            try:
                self.asking.send(b"?")
            except OSError as error:
                self._end(error.errno or errno.EIO)
        return True

    def go_on(self) -> None:
        """Take what has come: a connection that stands or failed, the backend's name."""
        if self.is_tcp and self._elapsed_s is None:
            failed = self.asking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failed:
                self._end(failed)
                return
            self._elapsed_s = handshake_s(self.asking) or self._so_far_s()
        try:
            self._backend = self.asking.recv(NAME_BYTES_MAX).decode() or "-"
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.errno or errno.EIO)
        else:
            self._end()

    def give_up(self) -> None:
        """Nothing came in time; where the connection stands only the name is missing."""
        self._end(errno.ETIMEDOUT if self._elapsed_s is None else 0)

    def line(self) -> str:
        return f"{self._at_s:.6f} {self._elapsed_s:.6f} {self._backend} {self._why}"

    def _end(self, failed: int = 0) -> None:
        self.ended = True
        if failed:
            self._why = WHY.get(failed, errno.errorcode.get(failed, str(failed)).lower())
        if self._elapsed_s is None:
            self._elapsed_s = self._so_far_s()

    def _so_far_s(self) -> float:
        return time.monotonic() - self._begun_s


def handshake_s(connected: socket.socket) -> float | None:
    """The kernel's own measure of a handshake; None where a SYN was lost, which it does not count in."""
    info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if int.from_bytes(info[_INFO_RETRANSMITTED], sys.byteorder):
        return None
    return int.from_bytes(info[_INFO_RTT], sys.byteorder) / 1e6


class Asker:
    """Asks one address on a schedule, and prints how it went."""

    def __init__(self, address: str, port: int, protocol: str, *, per_s: float, timeout_s: float) -> None:
        self._target = (address, port)
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._kind = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}[protocol]
        self._interval_s = 1 / per_s
        self._timeout_s = timeout_s
        self._number = int(time.clock_gettime(time.CLOCK_BOOTTIME) * per_s)
        self._selector = selectors.DefaultSelector()
        self._under_way: deque[Attempt] = deque()

    def run(self) -> None:
        """Ask for ever."""
        due_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            if now_s >= due_s:
                self._begin()
                self._number += 1
                due_s += self._interval_s * (1 + (now_s - due_s) // self._interval_s)
            until_s = min(due_s, self._under_way[0].deadline_s) if self._under_way else due_s
            self._look(max(0.0, until_s - time.monotonic()))

    def _begin(self) -> None:
        for number in range(self._number, self._number + PORTS_TRIED):
            attempt = Attempt(socket.socket(self._family, self._kind))
            if attempt.begin(PORTS[number % len(PORTS)], self._target, self._timeout_s):
                break
            attempt.asking.close()
        else:
            raise OSError(errno.EADDRINUSE, f"{PORTS_TRIED} source ports in a row are in use")
        events = selectors.EVENT_WRITE if attempt.is_tcp else selectors.EVENT_READ
        self._selector.register(attempt.asking, events, attempt)
        self._under_way.append(attempt)
        self._tell_if_ended(attempt)

    def _look(self, wait_s: float) -> None:
        """Whatever has come is taken before anything is given up."""
        for key, events in self._selector.select(wait_s):
            key.data.go_on()
            if events & selectors.EVENT_WRITE and not key.data.ended:
                self._selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
            self._tell_if_ended(key.data)
        now_s = time.monotonic()
        while self._under_way and self._under_way[0].deadline_s <= now_s:
            attempt = self._under_way.popleft()
            if not attempt.ended:
                attempt.give_up()
                self._tell_if_ended(attempt)

    def _tell_if_ended(self, attempt: Attempt) -> None:
        if attempt.ended:
            self._selector.unregister(attempt.asking)
            attempt.asking.close()
            print(attempt.line(), flush=True)


if __name__ == "__main__":
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE_MIN)
    address, port, protocol, per_s, timeout_s = sys.argv[1:]
    Asker(address, int(port), protocol, per_s=float(per_s), timeout_s=float(timeout_s)).run()
