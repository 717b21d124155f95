"""A client behind a real node: what it sends to a Service goes through that node's rules.

It lives in a namespace whose only neighbour is the node, as a pod's does, and asks again and again on a fixed
schedule. The node pays nothing for it: its processes are in a cgroup of their own.
"""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Final, Literal

from framework import network
from framework.errors import KilonodeError
from framework.fleet import FAKE_RANGE
from framework.ledger import Ledger, Netns, Thing
from framework.outcome import Connect
from framework.process import Daemon
from framework.traffic import ask
from framework.traffic.backends import Backends
from framework.traffic.records import parse_connects

CLIENTS_RANGE: Final = ipaddress.IPv4Network("100.64.0.0/16")
"""Out of the range for carriers' own use (RFC 6598): in no other network here. Four addresses for a client,
by the last part of its node's address."""
CLIENT_PREFIX: Final = 30
ATTEMPTS_PER_S: Final = 50.0
ATTEMPT_TIMEOUT_S: Final = 1.0
LINK: Final = "client"


class Client:
    """One client; ``ask`` starts it, ``connects`` tells what it met."""

    def __init__(self, backends: Backends, ledger: Ledger, *, node_netns: str, node_address: str) -> None:
        """Make its namespace behind the node, with routes between both and the backends."""
        self.netns = f"{node_netns}-client"
        self._backends = backends
        self._ledger = ledger
        self._log = backends.folder / f"{self.netns}.log"
        self._daemon: Daemon | None = None
        self._offset = 0
        self._rest = b""
        self._things: tuple[Thing, ...] = (Netns(self.netns),)
        subnet = client_subnet(node_address)
        ledger.record(self._things[0])
        network.add_netns(self.netns)
        network.connect_behind(node_netns, self.netns, link=LINK, subnet=subnet)
        network.route(node_netns, FAKE_RANGE, via=backends.address)
        network.route(backends.netns, subnet, via=node_address)

    def ask(self, address: str, port: int, protocol: Literal["TCP", "UDP"] = "TCP") -> None:
        """Begin to ask ``address``; does nothing when it asks already."""
        if self._daemon is not None:
            return
        self._daemon = Daemon.start(
            "client",
            [
                *(sys.executable, "-S", "-E", Path(ask.__file__)),
                *(address, str(port), protocol, str(ATTEMPTS_PER_S), str(ATTEMPT_TIMEOUT_S)),
            ],
            log_path=self._log,
            netns=self.netns,
            cgroup_procs=self._backends.cgroup.procs_path,
        )

    def connects(self, zero_s: float) -> tuple[Connect, ...]:
        """The attempts that ended since the last call; an attempt takes up to ``ATTEMPT_TIMEOUT_S``.

        ``zero_s`` is the zero of their times on CLOCK_BOOTTIME. Raises KilonodeError when the client died.
        """
        if self._daemon is None:
            return ()
        self._daemon.require_alive()
        with self._log.open("rb") as log:
            log.seek(self._offset)
            new = self._rest + log.read()
            self._offset = log.tell()
        whole, newline, self._rest = new.rpartition(b"\n")
        return parse_connects((whole + newline).decode(errors="replace"), zero_s)

    def stop(self) -> None:
        """End it and remove its namespace."""
        if self._daemon is not None:
            self._daemon.stop()
        failures = self._ledger.undo(self._things)
        if failures:
            raise KilonodeError(
                f"the client left something behind: {'; '.join(failures)}",
                where=self.netns,
                remedy="run `kilonode clean`",
            )


def client_subnet(node_address: str) -> ipaddress.IPv4Network:
    """Four addresses for the client of a node, distinct on one bridge."""
    host = int(ipaddress.IPv4Address(node_address)) % 256
    first = CLIENTS_RANGE[host << (32 - CLIENT_PREFIX)]
    return ipaddress.IPv4Network((first, CLIENT_PREFIX))
