"""A program, run inside a client's network namespace: asks one address again and again, and says how it went.

    python -S -E ask.py ADDRESS PORT PROTOCOL PER_S TIMEOUT_S

A line for each attempt: when it began (CLOCK_BOOTTIME, s), how long it took (s; TCP: the handshake, UDP: the
answer), and the backend that answered, or "-" and why none did. Attempts are begun on a fixed schedule and
don't wait for each other, so that an outage shows as as many failures as its length. Each has a socket, and
so a source port, of its own. Ends at SIGTERM. Standard library only, because it is run as a file of its own.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import time
from contextlib import suppress

WHY = {errno.ECONNREFUSED: "refused", errno.EHOSTUNREACH: "unreachable", errno.ENETUNREACH: "unreachable"}


async def ask(address: str, port: int, kind: socket.SocketKind, timeout_s: float) -> None:
    """One attempt, and its line."""
    loop = asyncio.get_running_loop()
    at_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    begin_s = time.perf_counter()
    backend, why = "-", ""
    with socket.socket(socket.AF_INET, kind) as asking:
        asking.setblocking(False)
        try:
            async with asyncio.timeout(timeout_s):
                await loop.sock_connect(asking, (address, port))
                if kind is socket.SOCK_DGRAM:
                    await loop.sock_sendall(asking, b"?")
                    backend = (await loop.sock_recv(asking, 64)).decode()
                elapsed_s = time.perf_counter() - begin_s
                if kind is socket.SOCK_STREAM:
                    backend = (await loop.sock_recv(asking, 64)).decode() or "-"
                    why = "" if backend != "-" else "closed"
        except TimeoutError:
            elapsed_s, why = time.perf_counter() - begin_s, "timeout"
        except OSError as error:
            elapsed_s, why = time.perf_counter() - begin_s, WHY.get(error.errno or 0, str(error.errno))
    sys.stdout.write(f"{at_s:.6f} {elapsed_s:.6f} {backend} {why}\n")


async def ask_on_schedule(address: str, port: int, protocol: str, per_s: float, timeout_s: float) -> None:
    """Attempts, ``per_s`` of them each second, for ever."""
    kind = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}[protocol]
    begin_s, begun = time.monotonic(), 0
    under_way: set[asyncio.Task[None]] = set()
    while True:
        attempt = asyncio.create_task(ask(address, port, kind, timeout_s))
        under_way.add(attempt)
        attempt.add_done_callback(under_way.discard)
        begun += 1
        await asyncio.sleep(max(0.0, begin_s + begun / per_s - time.monotonic()))
        sys.stdout.flush()


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        asyncio.run(
            ask_on_schedule(
                sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]), float(sys.argv[5])
            )
        )
