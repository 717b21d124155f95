"""A program, run inside the backends' network namespace: every address that it owns answers.

    python -S -E answer.py PORT...

TCP: each connection is told the address that it reached, and closed. UDP: each datagram is answered with it,
from there. Standard library only, because it is run as a file of its own. Prints "answering" when it does.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys

BACKLOG = 4096
IP_PKTINFO = 8
"""linux/in.h; Python's socket module lacks it."""
_PKTINFO = struct.Struct("=I4s4s")


def answer(ports: list[int]) -> None:
    """Answer on these ports until the process is ended."""
    with selectors.DefaultSelector() as selector:
        for port in ports:
            selector.register(_tcp(port), selectors.EVENT_READ, _greet)
            selector.register(_udp(port), selectors.EVENT_READ, _reply)
        print("answering", flush=True)
        while True:
            for key, _ in selector.select():
                key.data(key.fileobj)


def _tcp(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", port))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _udp(port: int) -> socket.socket:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    receiver.bind(("", port))
    receiver.setblocking(False)
    return receiver


def _greet(listener: socket.socket) -> None:
    try:
        connection, _ = listener.accept()
    except OSError:
        return
    with connection:
        try:
            connection.send(connection.getsockname()[0].encode())
        except OSError:
            return


def _reply(receiver: socket.socket) -> None:
    try:
        _, ancillary, _, client = receiver.recvmsg(64, socket.CMSG_SPACE(_PKTINFO.size))
    except OSError:
        return
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            _, _, reached = _PKTINFO.unpack(data[: _PKTINFO.size])
            from_there = [(level, kind, _PKTINFO.pack(0, reached, bytes(4)))]
            receiver.sendmsg([socket.inet_ntoa(reached).encode()], from_there, 0, client)


if __name__ == "__main__":
    answer([int(port) for port in sys.argv[1:]])
