"""A program, run inside the backends' network namespace: every address that it owns answers.

    python -S -E answer.py PORT...

TCP: each connection is told the address that it reached, and closed. UDP: each datagram is answered with it,
from there. Both over IPv4, and over IPv6 where the kernel has it. It runs before other processes where it
may, so that a busy machine does not look like a Service that nobody serves. Standard library only, because it
is run as a file of its own. Prints "answering" when it does.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import NamedTuple

BACKLOG = 4096
NICE_MIN = -20
"""Not a real-time policy; ``framework.traffic.ask`` says why."""
IP_PKTINFO = 8
IPV6_FREEBIND = 78
"""linux/in.h and linux/in6.h; Python's socket module lacks them."""


class Family(NamedTuple):
    """How the kernel tells the address that a datagram reached, and is told the one to answer from.

    Both are in a structure of ``size`` bytes, whose others may be zero.
    """

    number: socket.AddressFamily
    level: int
    asked: int
    info: int
    size: int
    reached: slice
    sender: slice


IPV4 = Family(
    socket.AF_INET, socket.IPPROTO_IP, IP_PKTINFO, IP_PKTINFO, 12, reached=slice(8, 12), sender=slice(4, 8)
)
"""struct in_pktinfo: int ifindex, in_addr spec_dst, in_addr addr."""
IPV6 = Family(
    socket.AF_INET6,
    socket.IPPROTO_IPV6,
    socket.IPV6_RECVPKTINFO,
    socket.IPV6_PKTINFO,
    20,
    reached=slice(16),
    sender=slice(16),
)
"""struct in6_pktinfo: in6_addr addr, int ifindex."""
_WITHOUT_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def answer(ports: list[int]) -> None:
    """Answer on these ports until the process is ended."""
    with selectors.DefaultSelector() as selector:
        for port in ports:
            _register(selector, IPV4, port)
            try:
                _register(selector, IPV6, port)
            except OSError as error:
                if error.errno not in _WITHOUT_IPV6:
                    raise
        print("answering", flush=True)
        while True:
            for key, _ in selector.select():
                with suppress(OSError):
                    key.data(key.fileobj)


def _register(selector: selectors.BaseSelector, family: Family, port: int) -> None:
    listener = _bound(family, socket.SOCK_STREAM, port)
    listener.listen(BACKLOG)
    receiver = _bound(family, socket.SOCK_DGRAM, port)
    receiver.setsockopt(family.level, family.asked, 1)
    selector.register(listener, selectors.EVENT_READ, _greet)
    selector.register(receiver, selectors.EVENT_READ, partial(_reply, family))


def _bound(family: Family, kind: socket.SocketKind, port: int) -> socket.socket:
    """IPv6 sends from an address that is its own by a route only where any address is allowed."""
    made = socket.socket(family.number, kind)
    made.setblocking(False)
    if kind is socket.SOCK_STREAM:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family is IPV6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    made.bind(("", port))
    return made


def _greet(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.send(connection.getsockname()[0].encode())


def _reply(family: Family, receiver: socket.socket) -> None:
    _, ancillary, _, client = receiver.recvmsg(64, socket.CMSG_SPACE(family.size))
    for level, kind, data in ancillary:
        if (level, kind) == (family.level, family.info):
            reached, info = data[family.reached], bytearray(family.size)
            info[family.sender] = reached
            receiver.sendmsg(
                [socket.inet_ntop(family.number, reached).encode()], [(level, kind, info)], 0, client
            )


if __name__ == "__main__":
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE_MIN)
    answer([int(port) for port in sys.argv[1:]])
