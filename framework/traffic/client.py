"""A client behind a real node: what it sends to a Service goes through that node's rules.

It lives in a namespace whose only neighbour is the node, as a pod's does, and asks again and again on a fixed
schedule. The node forwards what it sends by plain routes, and pays nothing for it: its processes are in a
cgroup of their own, and what the kernel holds for a connection that it forwards is charged to nobody.

What it asks need not be a Service. An endpoint's own address is reached through the same node and links, but
by no rule of a Service: asked beside the Service it is what the Service's figures compare with.
"""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Final

from framework import network
from framework.fleet import ENDPOINTS_V6, FAKE_RANGE
from framework.ledger import Ledger, Netns, Thing
from framework.outcome import Connect
from framework.process import Daemon
from framework.spec import Protocol
from framework.traffic import ask
from framework.traffic.backends import Backends
from framework.traffic.records import parse_connects

CLIENTS_RANGE: Final = ipaddress.IPv4Network("100.64.0.0/16")
"""Out of the range for carriers' own use (RFC 6598): in no other network here. Four addresses for a client,
by the last part of its node's address."""
CLIENT_PREFIX: Final = 30
CLIENTS_RANGE_V6: Final = ipaddress.IPv6Network("fd00:100:64::/48")
CLIENT_PREFIX_V6: Final = 64
ATTEMPTS_PER_S: Final = 50.0
ATTEMPT_TIMEOUT_S: Final = 1.0
"""The time after which a SYN that got no answer is sent again (RFC 6298), so an attempt is one packet."""
ATTEMPT_S_MAX: Final = ATTEMPT_TIMEOUT_S + 0.25
"""An attempt that began longer ago has ended, and its line is written."""
LINK: Final = "client"


class Asking:
    """A program that asks one address; made by ``Client.start``, which also ends it."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._offset = 0
        self._rest = b""
        self._stopped = False

    def connects(self, zero_s: float) -> tuple[Connect, ...]:
        """The attempts that ended since the last call, in the order of their ends.

        ``zero_s`` is the zero of their times on CLOCK_BOOTTIME. One that is under way is in a later answer:
        a stretch of time is complete when it ended ``ATTEMPT_S_MAX`` ago. Raises KilonodeError when the
        program ended by itself.
        """
        if not self._stopped:
            self.daemon.require_alive()
        with self.daemon.log_path.open("rb") as log:
            log.seek(self._offset)
            new = self._rest + log.read()
            self._offset = log.tell()
        whole, newline, self._rest = new.rpartition(b"\n")
        return parse_connects((whole + newline).decode(errors="replace"), zero_s)

    def stop(self) -> None:
        """End it; an attempt under way then stays without end. What ended can still be read."""
        self._stopped = True
        self.daemon.stop()


class Client:
    """One client: ``ask`` has it ask a Service, ``connects`` says what it met."""

    def __init__(self, backends: Backends, ledger: Ledger, *, node_netns: str, node_address: str) -> None:
        """Make its namespace behind the node, with routes between both and the backends."""
        self.netns = f"{node_netns}-client"
        self.subnets = client_subnets(node_address)[: 2 if network.has_ipv6() else 1]
        self._backends = backends
        self._ledger = ledger
        self._node_netns = node_netns
        self._things: tuple[Thing, ...] = (Netns(self.netns),)
        self._askings: list[Asking] = []
        self._target: tuple[str, int, Protocol] | None = None
        self._asked: list[Asking] = []
        ledger.record(self._things[0])
        network.add_netns(self.netns)
        network.connect_behind(node_netns, self.netns, link=LINK, subnets=self.subnets)
        network.route(node_netns, FAKE_RANGE, via=backends.address)
        if network.has_ipv6():
            network.add_link_local(node_netns, node_address)
            network.route(node_netns, ENDPOINTS_V6, via=backends.address)
        for subnet in self.subnets:
            network.route(backends.netns, subnet, via=node_address)

    def ask(self, address: str, port: int, protocol: Protocol = "TCP") -> None:
        """Ask this Service from now on, and the one before no longer; that goes on if it is the same."""
        if self._target == (address, port, protocol):
            return
        for asking in self._asked:
            asking.stop()
        self._target = (address, port, protocol)
        self._asked.append(self.start(address, port, protocol))

    def connects(self, zero_s: float) -> tuple[Connect, ...]:
        """What ``ask`` met since the last call; see ``Asking.connects``.

        Raises KilonodeError when the client or the backends' server ended by itself: then nobody knows.
        """
        self._backends.require_alive()
        found = tuple(connect for asking in self._asked for connect in asking.connects(zero_s))
        del self._asked[:-1]
        return found

    def start(
        self,
        address: str,
        port: int,
        protocol: Protocol = "TCP",
        *,
        per_s: float = ATTEMPTS_PER_S,
        timeout_s: float = ATTEMPT_TIMEOUT_S,
    ) -> Asking:
        """Ask an address beside whatever else is asked, ``per_s`` times a second, until the end."""
        log = self._backends.folder / f"{self.netns}-{len(self._askings)}.log"
        log.unlink(missing_ok=True)
        daemon = Daemon.start(
            f"client of {address}",
            [
                *(sys.executable, "-S", "-E", Path(ask.__file__)),
                *(address, str(port), protocol, str(per_s), str(timeout_s)),
            ],
            log_path=log,
            netns=self.netns,
            cgroup_procs=self._backends.cgroup.procs_path,
        )
        self._askings.append(Asking(daemon))
        return self._askings[-1]

    def stop(self) -> None:
        """End it and remove its namespace."""
        for asking in self._askings:
            asking.stop()
        network.delete_link(LINK, netns=self._node_netns)
        self._ledger.remove(self._things, whose="the client", where=self.netns)


def client_subnets(node_address: str) -> tuple[network.Network, ...]:
    """The IPv4 and the IPv6 network of a node's client, distinct on one bridge."""
    host = int(ipaddress.IPv4Address(node_address)) % 256
    four = CLIENTS_RANGE[host << (32 - CLIENT_PREFIX)]
    six = CLIENTS_RANGE_V6[host << (128 - CLIENT_PREFIX_V6)]
    return ipaddress.IPv4Network((four, CLIENT_PREFIX)), ipaddress.IPv6Network((six, CLIENT_PREFIX_V6))
