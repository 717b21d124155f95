"""The default control plane: kwokctl's binary runtime in a network namespace of its own.

kwokctl makes the PKI and starts etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok. The
framework gives it exact binaries and a place, and ends everything by that place, also where kwokctl is gone:

* a *cluster namespace* with a bridge, so that everything listens on its loopback and kube-apiserver alone on
  the bridge as well; ports are always the same and clusters never collide;
* a memory cgroup without limit, which tells what the control plane costs, and from which every process of it
  can be ended, whoever its parent was;
* a state folder for etcd's data, logs and keys.

The order is: write everything down in the ledger, make the namespace, run ``kwokctl create cluster`` inside
both, wait for /readyz.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from framework import network, process
from framework.binaries import Binaries, Binary
from framework.cgroup import MemoryCgroup, memory_cgroup
from framework.cluster.api import ApiEndpoint
from framework.cluster.kwokctl import component_name, configuration
from framework.cluster.lease_budget import LeaseBudget
from framework.errors import KilonodeError
from framework.ledger import Cgroup, Folder, Ledger, Link, Netns, machine_lock
from framework.wait import wait_until

KWOKCTL_TIMEOUT_S: Final = 180.0
READY_TIMEOUT_S: Final = 60.0
READY_INTERVAL_S: Final = 0.2
BRIDGE_HOST: Final = 1
"""Last octet of the bridge's address, which is kube-apiserver's for real nodes and for the host."""
FRAMEWORK_HOST: Final = 2
FIRST_NODE_HOST: Final = 10
COMPONENTS: Final = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
    "kwokctl",
    "kubectl",
)
CONTROLLERS: Final = ("kube-controller-manager", "kube-scheduler", "kwok")


@dataclass(frozen=True)
class ControlPlaneSettings:
    """What may differ between embedded control planes.

    ``envs`` are environment variables by component, such as ``{"kube-apiserver": {"GOGC": "400"}}``.
    """

    budget: LeaseBudget
    envs: Mapping[str, Mapping[str, str]]


class EmbeddedCluster:
    """A running control plane. Made by ``start``; what it created is in the ledger."""

    kind: Final = "embedded"

    def __init__(
        self,
        ledger: Ledger,
        binaries: dict[str, Binary],
        settings: ControlPlaneSettings,
        subnet: IPv4Network,
    ) -> None:
        self.run_id = ledger.run_id
        self.name = f"kilonode-{ledger.run_id}"
        self.settings = settings
        self.binaries = binaries
        self.subnet = subnet
        self.netns = self.name
        self.address = str(subnet[BRIDGE_HOST])
        self.folder = ledger.folder / "cluster"
        self.cgroup: MemoryCgroup = memory_cgroup(f"{self.name}/control-plane")
        self._next_node_host = FIRST_NODE_HOST

    @classmethod
    def start(cls, ledger: Ledger, binaries: Binaries, settings: ControlPlaneSettings) -> EmbeddedCluster:
        """Create and start a control plane, Ready when this returns.

        Raises KilonodeError with the end of the component's log that kept it from being Ready.
        """
        found = {name: binaries.get(name) for name in COMPONENTS}
        link = f"kn{ledger.run_id}"
        with machine_lock("network"):
            cluster = cls(ledger, found, settings, network.free_subnet())
            ledger.record(Folder(str(cluster.folder)))
            ledger.record(Link(link))
            ledger.record(Netns(cluster.netns))
            ledger.record(Cgroup(cluster.name))
            network.add_netns(cluster.netns)
            network.add_bridge(cluster.netns, address=cluster.address)
            network.connect_host(cluster.netns, link=link, address=str(cluster.subnet[FRAMEWORK_HOST]))
        cluster.folder.mkdir(mode=0o700)
        cluster.cgroup.create()
        cluster._create()
        cluster._wait_ready()
        return cluster

    @property
    def version(self) -> str:
        return self.binaries["kube-apiserver"].version

    @property
    def endpoint(self) -> ApiEndpoint:
        return ApiEndpoint.from_kubeconfig(self.kubeconfig)

    @property
    def kubeconfig(self) -> Path:
        """For use on the host and in real nodes: the API server on the bridge."""
        return self.folder / "kubeconfig"

    @property
    def logs(self) -> Path:
        return self._workdir / "logs"

    @property
    def _workdir(self) -> Path:
        return self.folder / "kwokctl" / "clusters" / self.name

    def next_node_address(self) -> str:
        """An address on the bridge for one more real node."""
        host, self._next_node_host = self._next_node_host, self._next_node_host + 1
        if host >= self.subnet.num_addresses - 1:
            raise KilonodeError("the bridge has no address left for a real node", remedy="start a new run")
        return str(self.subnet[host])

    def signal(self, component: str, signum: signal.Signals) -> None:
        """Send ``signum`` to one component, such as SIGSTOP to pause kwok."""
        program = component_name(component)
        for pid in self.cgroup.pids():
            if _program(pid) == program:
                os.kill(pid, signum)

    @contextmanager
    def controllers_paused(self) -> Iterator[None]:
        """Stop the controllers and kwok while objects are loaded in bulk, and let them go on after it."""
        for component in CONTROLLERS:
            self.signal(component, signal.SIGSTOP)
        try:
            yield
        finally:
            for component in CONTROLLERS:
                self.signal(component, signal.SIGCONT)

    @staticmethod
    def logs_below(run_folder: Path) -> tuple[Path, ...]:
        """The log folder of a run's control plane, whether it came up or not."""
        return tuple(run_folder.glob("cluster/kwokctl/clusters/*/logs"))

    def _create(self) -> None:
        config = self.folder / "kwokctl.yaml"
        config.write_text(
            configuration(
                binaries=self.binaries,
                budget=self.settings.budget,
                envs=self.settings.envs,
                address=self.address,
                cache=self.folder / "kwokctl-cache",
            )
        )
        self._kwokctl("create", "cluster", "--name", self.name, "--config", str(config), "--wait", "0s")
        text = (self._workdir / "kubeconfig.yaml").read_text()
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(text.replace("https://127.0.0.1:", f"https://{self.address}:"))

    def _kwokctl(self, *arguments: str) -> None:
        tools = self.binaries["kubectl"].path.parent
        process.run(
            process.inside(
                [str(self.binaries["kwokctl"].path), *arguments],
                cgroup_procs=self.cgroup.procs_path,
                netns=self.netns,
            ),
            env={
                "KWOK_WORKDIR": str(self.folder / "kwokctl"),
                "KUBECONFIG": str(self.folder / "kwokctl-kubeconfig"),
                "PATH": f"{tools}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            },
            timeout_s=KWOKCTL_TIMEOUT_S,
            remedy=f"read the components' logs in {self.logs}",
        )

    def _wait_ready(self) -> None:
        argv: list[str | Path] = [
            self.binaries["kubectl"].path,
            "--kubeconfig",
            self.kubeconfig,
            "get",
            "--raw",
            "/readyz",
        ]
        answers: list[process.Completed] = []

        def ready() -> bool | None:
            answers[:] = [process.run(argv, check=False)]
            return True if answers[0].exit_code == 0 else None

        wait_until(
            ready,
            what="the API server ready",
            timeout_s=READY_TIMEOUT_S,
            interval_s=READY_INTERVAL_S,
            describe=lambda: answers[0].stderr.decode(errors="replace"),
            remedy=f"read the components' logs in {self.logs}",
        )


def _program(pid: int) -> str | None:
    """The name of a process's executable; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return None
