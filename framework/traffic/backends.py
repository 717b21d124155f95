"""All endpoints of a cluster, in one network namespace that owns their whole ranges.

A local route makes every fake address the namespace's own, so one small server answers for 100,000 endpoints.
It hangs on the node bridge like a node: what a client sends goes through the real node's rules and is
answered by the endpoint that they picked, which says its address.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from framework import network
from framework.cgroup import memory_cgroup
from framework.cluster import ControlPlane
from framework.fleet import ENDPOINTS_V6, FAKE_RANGE
from framework.ledger import Cgroup, Ledger, Netns, Thing
from framework.process import Daemon
from framework.traffic import answer
from framework.wait import wait_until

START_TIMEOUT_S: Final = 20.0


class Backends:
    """The endpoints' namespace, and the servers in it."""

    def __init__(self, cluster: ControlPlane, ledger: Ledger) -> None:
        """Make the namespace; nobody answers before ``serve``."""
        self.netns = f"{cluster.name}-backends"
        self.address = cluster.next_node_address()
        self.folder = ledger.folder / "traffic"
        self.cgroup = memory_cgroup(f"{cluster.name}/traffic")
        self._daemons: dict[int, Daemon] = {}
        self._cluster = cluster
        self._link = cluster.link("b")
        self._ledger = ledger
        self._things: tuple[Thing, ...] = (Netns(self.netns), Cgroup(f"{cluster.name}/traffic"))
        for thing in self._things:
            ledger.record(thing)
        self.cgroup.create()
        network.add_netns(self.netns)
        cluster.attach(self.netns, link=self._link, address=self.address)
        network.own_range(self.netns, FAKE_RANGE)
        if network.has_ipv6():
            network.add_link_local(self.netns, self.address)
            network.own_range(self.netns, ENDPOINTS_V6)

    def serve(self, ports: tuple[int, ...]) -> None:
        """Have every endpoint answer on these ports, TCP and UDP."""
        for port in ports:
            if port not in self._daemons:
                self._daemons[port] = self._start(port)

    def require_alive(self) -> None:
        """Raises KilonodeError when a server died: what clients meet then is no figure of the node's."""
        for daemon in self._daemons.values():
            daemon.require_alive()

    def stop(self) -> None:
        """End the servers and remove the namespace, with whatever clients are left."""
        for daemon in self._daemons.values():
            daemon.stop()
        self._daemons.clear()
        self._cluster.detach(self._link)
        self._ledger.remove(self._things, whose="traffic", where=self.netns)

    def _start(self, port: int) -> Daemon:
        daemon = Daemon.start(
            f"backends-{port}",
            [sys.executable, "-S", "-E", Path(answer.__file__), str(port)],
            log_path=self.folder / f"backends-{port}.log",
            netns=self.netns,
            cgroup_procs=self.cgroup.procs_path,
        )

        def answering() -> bool | None:
            daemon.require_alive()
            return "answering" in daemon.log_tail() or None

        wait_until(answering, what=f"backends on port {port}", timeout_s=START_TIMEOUT_S)
        return daemon
