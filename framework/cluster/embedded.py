"""The default control plane: kwokctl's binary runtime in a network namespace of its own.

kwokctl makes the PKI and starts etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok. The
framework gives it exact binaries and a place, and ends everything by that place, also where kwokctl is gone:

* a *cluster namespace* with a bridge, so that everything listens on its loopback and kube-apiserver alone on
  the bridge as well; ports are always the same and clusters never collide;
* a memory cgroup without limit, which tells what the control plane costs, and from which every process of it
  can be ended, whoever its parent was;
* a state folder for etcd's data, logs and keys.

Each step leaves the rest to ``kwokctl create cluster``, which starts what is missing of a cluster that
exists; so a phase of loading and one of measuring may tune the API server differently, and etcd's data may be
replaced in between.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from framework import network, process
from framework.binaries import Binaries, Binary
from framework.cgroup import MemoryCgroup, memory_cgroup
from framework.cluster.control_plane import (
    CONTROLLERS,
    MEASURING,
    NO_FAKES,
    STORAGE,
    ControlPlane,
)
from framework.cluster.kwokctl import component_name, configuration
from framework.cluster.lease_budget import lease_budget
from framework.ledger import Cgroup, Folder, Ledger, Link, Netns, machine_lock
from framework.outcome import Component

KWOKCTL_TIMEOUT_S: Final = 180.0
FRAMEWORK_HOST: Final = 2
"""Last octet of the host's address on the bridge."""
FIRST_NODE_HOST: Final = 10
TOOLS: Final = ("kwokctl", "kubectl")


class EmbeddedCluster(ControlPlane):
    """Made by ``start``; what it created is in the ledger."""

    kind = "embedded"

    def __init__(
        self,
        ledger: Ledger,
        binaries: dict[str, Binary],
        subnet: IPv4Network,
    ) -> None:
        super().__init__(ledger, binaries, subnet, first_node_host=FIRST_NODE_HOST)
        self._cgroup = memory_cgroup(f"{self.name}/control-plane")

    @property
    def cgroup(self) -> MemoryCgroup:
        return self._cgroup

    @classmethod
    def start(cls, ledger: Ledger, binaries: Binaries) -> EmbeddedCluster:
        """Create and start a whole control plane without fake nodes, Ready when this returns.

        Raises KilonodeError with the end of the component's log that kept it from being Ready.
        """
        cluster = cls.place(ledger, binaries)
        cluster.serve(MEASURING)
        cluster.control(lease_budget(NO_FAKES, cluster.renewal_cost))
        return cluster

    @classmethod
    def place(cls, ledger: Ledger, binaries: Binaries) -> EmbeddedCluster:
        """Make a control plane's namespace, bridge, cgroup and folder; nothing runs yet."""
        found = {name: binaries.get(name) for name in (*STORAGE, *CONTROLLERS, *TOOLS)}
        with machine_lock("network"):
            cluster = cls(ledger, found, network.free_subnet())
            link = cluster.link("")
            ledger.record(Folder(str(cluster.folder)))
            ledger.record(Link(link))
            ledger.record(Netns(cluster.netns))
            ledger.record(Cgroup(cluster.name))
            network.add_netns(cluster.netns)
            network.add_bridge(cluster.netns, address=cluster.address)
            network.connect_host(cluster.netns, link=link, address=str(cluster.subnet[FRAMEWORK_HOST]))
        cluster.folder.mkdir(mode=0o700)
        cluster.cgroup.create()
        return cluster

    @property
    def etcd_data(self) -> Path:
        return self._workdir / "etcd"

    def components(self) -> tuple[Component, ...]:
        return tuple(binary.component() for binary in self.binaries.values())

    def attach(self, netns: str, *, link: str, address: str) -> None:
        network.connect_node(self.netns, netns, link=link, address=address, gateway=self.address)

    def detach(self, link: str) -> None:
        network.delete_link(link, netns=self.netns)

    @property
    def version(self) -> str:
        return self.binaries["kube-apiserver"].version

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

    def _pids(self, component: str) -> tuple[int, ...]:
        """kwokctl runs a link to the executable, so the kernel names the executable itself."""
        executable = self.binaries[component].path.resolve()
        return tuple(pid for pid in self.cgroup.pids() if process.executable_of(pid) == executable)

    def _stop(self, component: str) -> None:
        """kwokctl takes what its pid file names for running, even where the pid is a stranger's by now."""
        self._end_processes(component)
        name = component_name(component)
        (self._workdir / "pids" / f"{name}.pid").unlink(missing_ok=True)
        self._put_log_aside(name)

    def _put_log_aside(self, name: str) -> None:
        """Started again, a component would write over it."""
        log = self.logs / f"{name}.log"
        if log.exists():
            number = len(list(self.logs.glob(f"{name}.*.log"))) + 1
            log.rename(self.logs / f"{name}.{number}.log")

    def _start(self, *components: str) -> None:
        """Have ``components`` and storage running beside what runs; kwokctl starts what is missing and writes
        its cluster's file anew."""
        wanted = {*STORAGE, *components, *self._running}
        if wanted == set(self._running):
            return
        running = tuple(name for name in (*STORAGE, *CONTROLLERS) if name in wanted)
        config = self.folder / "kwokctl.yaml"
        config.write_text(
            configuration(
                binaries=self.binaries,
                components=running,
                budget=self._budget,
                envs=self._tuning.envs,
                address=self.address,
                cache=self.folder / "kwokctl-cache",
                pki=self._workdir / "pki",
            )
        )
        (self._workdir / "kwok.yaml").unlink(missing_ok=True)
        self.kwokctl("create", "cluster", "--name", self.name, "--config", str(config), "--wait", "0s")
        for path in (*(self._workdir / "pki").glob("*.key"), self._workdir / "kubeconfig.yaml"):
            path.chmod(0o600)
        text = (self._workdir / "kubeconfig.yaml").read_text()
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(text.replace("https://127.0.0.1:", f"https://{self.address}:"))
        self._running = running
        self._wait_ready()

    def kwokctl(self, *arguments: str, timeout_s: float = KWOKCTL_TIMEOUT_S) -> None:
        """Run kwokctl where the control plane runs. Raises CommandError or TimeLimitError."""
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
            timeout_s=timeout_s,
            remedy=f"read the components' logs in {self.logs}",
        )
