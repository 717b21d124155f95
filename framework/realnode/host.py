"""A real node on this host: a network namespace and a memory cgroup around real daemons.

containerd, kubelet and kube-proxy enter the cgroup before exec and run from private copies, so every byte
from exec on is charged to the node's limit. The node registers itself and becomes Ready through its own
kubelet, as any node does; kube-proxy starts after that and spawns nft from the node's own copy.

The start is in the order of a boot: ballast, containerd, kubelet, Ready, pods, kube-proxy, its first sync.
Each process has the oom_score_adj of the node's OOM policy before its program is executed. With the restart
policy ``production`` a process that ended is started again after the delay that it would have there.

containerd and kubelet see their built-in folders below /run and /var in mount namespaces of their own, so
that sockets, state and logs of pods never lie on the host, and mounts end with the processes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from framework import network
from framework.binaries import Binaries, Binary
from framework.cgroup import MemoryCgroup, memory_cgroup
from framework.cluster import KUBELET_SYSCTLS, ApiEndpoint, ClusterLostError, ControlPlane
from framework.ledger import Folder, Ledger, Netns, Thing
from framework.oom_scores import lowest_score, plan_scores
from framework.outcome import Component, DaemonRecord, OomScores, PodRecord, ProcessExit, Restart
from framework.process import CAP_SYS_RESOURCE, Daemon, has_capability
from framework.realnode import config
from framework.realnode.ballast import hold_argv, wait_until_held
from framework.realnode.node import (
    OwnNode,
    daemon_record,
    label_node,
    node_condition,
    read_metrics,
    unregister,
)
from framework.realnode.pods import Pods, plain_pod_cgroup
from framework.realnode.private_copy import CopyPool, Executables
from framework.realnode.supervisor import Supervisor
from framework.realnode.transactions import capture_transactions, captured_transactions
from framework.spec import Ballast, RealNodeSpec
from framework.units import GIB
from framework.wait import wait_until

READY_TIMEOUT_S: Final = 60.0
STOPPING_BYTES: Final = 16 * GIB
"""A node that starves takes 10 s to end each daemon; with its limit lifted it ends at once."""
SOCKET_TIMEOUT_S: Final = 30.0
_SYSTEM_PROGRAMS: Final = ("containerd", "containerd-shim-runc-v2", "runc", "nft")
_BUILT_IN_FOLDERS: Final = {
    "containerd": ("/run/containerd",),
    "kubelet": ("/var/lib/kubelet", "/var/log/containers"),
}
"""What these write to whatever they are told: runc's state and shims' sockets, sockets of plugins, links to
the logs of containers."""
XTABLES: Final = "xtables-nft-multi"
"""All of iptables in one program, in the variant that writes nftables rules in the kernel. kubelet makes its
chains with it: six tables, each of which costs every nft half a MiB. In iptables mode it is what kube-proxy's
official images run, unless a node's kubelet made its chains with the legacy variant (iptables-wrappers)."""
_IPTABLES_NAMES: Final = tuple(
    family + program for family in ("iptables", "ip6tables") for program in ("", "-restore", "-save")
)


@dataclass
class HostNode(OwnNode):
    """One real node: ``prepare``, ``boot``, ``start_kube_proxy``, ``stop``."""

    spec: RealNodeSpec
    name: str
    address: str
    netns: str
    folder: Path
    cgroup: MemoryCgroup
    endpoint: ApiEndpoint
    """Nobody is asked there any more once it is lost."""
    binaries: dict[str, Binary]
    executables: Executables
    ledger: Ledger
    oom_scores: OomScores
    supervisor: Supervisor
    pods: Pods
    home: MemoryCgroup
    """Where its daemons are: its cgroup, or a child where those of pods leave no other place."""
    things: list[Thing] = field(default_factory=list)

    @classmethod
    def prepare(
        cls,
        spec: RealNodeSpec,
        name: str,
        *,
        cluster: ControlPlane,
        binaries: Binaries,
        ledger: Ledger,
        pool: CopyPool,
    ) -> HostNode:
        """A node with its namespace, cgroup, limit and executables; no process runs yet."""
        found = {program: binaries.system(program) for program in (*_SYSTEM_PROGRAMS, XTABLES)}
        found["kubelet"] = binaries.get("kubelet")
        found["kube-proxy"] = binaries.get("kube-proxy", spec.kube_proxy)
        folder = ledger.folder / "nodes" / name
        cgroup = memory_cgroup(f"{cluster.name}/{name}")
        node = cls(
            spec=spec,
            name=name,
            pods=Pods(name, cgroup, spec, cluster.endpoint, binaries, place=plain_pod_cgroup),
            home=cgroup,
            executables=Executables(pool, folder, spec.text),
            address=cluster.next_node_address(),
            netns=f"{cluster.name}-{name}",
            folder=folder,
            cgroup=cgroup,
            endpoint=cluster.endpoint,
            binaries=found,
            ledger=ledger,
            oom_scores=plan_scores(spec, lowest=lowest_score()),
            supervisor=Supervisor(spec),
        )
        node._create(cluster)
        return node

    def kube_proxy_metrics(self) -> str:
        return read_metrics(self.address)

    @property
    def kube_proxy_log(self) -> Path:
        return self.folder / "logs" / "kube-proxy.log"

    @property
    def transactions(self) -> tuple[Path, ...]:
        return captured_transactions(self.folder / "transactions")

    def start_kube_proxy(self) -> None:
        file = self.folder / "kube-proxy.yaml"
        file.write_text(
            config.kube_proxy_config(
                name=self.name,
                address=self.address,
                kubeconfig=self.endpoint.kubeconfig,
                mode=self.spec.proxy_mode,
                oom_score_adj=self.oom_scores.applied["kube-proxy"],
                overrides=self.spec.kube_proxy_config,
            )
        )
        self._start_daemon("kube-proxy", f"--config={file}", "-v=2")

    def stop_kube_proxy(self) -> None:
        self.supervisor.release("kube-proxy").stop()

    @property
    def daemons(self) -> dict[str, Daemon]:
        """The node's long-lived processes by name, in the order of their start; ended ones too."""
        return self.supervisor.daemons

    def is_alive(self, daemon: str) -> bool:
        return daemon in self.daemons and self.daemons[daemon].exit_code is None

    def require_alive(self, daemon: str) -> None:
        self.daemons[daemon].require_alive()

    def log_tail(self, daemon: str) -> str:
        return self.daemons[daemon].log_tail()

    def components(self) -> tuple[Component, ...]:
        return tuple(binary.component() for binary in self.binaries.values())

    @property
    def xtables(self) -> Path:
        return self.binaries[XTABLES].path

    def restarts(self, zero_s: float, exits: Sequence[ProcessExit]) -> tuple[Restart, ...]:  # noqa: ARG002
        return tuple(end.record(zero_s) for end in self.supervisor.ends)

    def daemon_records(self, exits: Sequence[ProcessExit]) -> tuple[DaemonRecord, ...]:  # noqa: ARG002
        ballast = {each.name for each in self.spec.processes}
        return tuple(
            daemon_record(name, daemon.pid, daemon.exit_code, "ballast" if name in ballast else "daemon")
            for name, daemon in self.daemons.items()
        )

    def pod_records(self) -> tuple[PodRecord, ...]:
        return self.pods.records()

    def stop(self) -> None:
        if self.cgroup.path.is_dir():
            self.cgroup.set_limit(STOPPING_BYTES)
        self.supervisor.stop()
        self.cgroup.remove()
        self.executables.give_back()
        try:
            if not self.endpoint.is_lost():
                self._unregister()
        finally:
            things, self.things = self.things, []
            self.ledger.remove(things, whose="the node", where=self.name)

    def keep_logs(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for source in (*self.folder.glob("logs/*"), *self.folder.glob("*.yaml"), *self.folder.glob("*.toml")):
            shutil.copy2(source, folder / source.name)

    def _record(self, thing: Thing) -> None:
        self.ledger.record(thing)
        self.things.append(thing)

    def _create(self, cluster: ControlPlane) -> None:
        self._record(Folder(str(self.folder)))
        self._record(Netns(self.netns))
        for key in KUBELET_SYSCTLS:
            self.things += self.ledger.record_sysctl(key)
        self.folder.mkdir(parents=True, mode=0o700)
        for name in ("containerd", "kubelet", "logs", "cni/net.d", "cni/bin"):
            (self.folder / name).mkdir(parents=True)
        self.executables.take([(name, binary.path) for name, binary in self.binaries.items()])
        self.executables.take_iptables(self.binaries[XTABLES].path, _IPTABLES_NAMES)
        if self.spec.capture_transactions:
            capture_transactions(self.executables.bin / "nft", self.folder / "transactions")
        network.add_netns(self.netns)
        cluster.attach(self.netns, link=self.name, address=self.address)
        self.cgroup.create()
        if self.spec.pods:
            self.home = self.cgroup.delegate()
        self.cgroup.set_limit(self.spec.memory_bytes)

    def boot(self) -> None:
        """Start the daemons and, when the node is Ready, its pods; kube-proxy isn't started yet.

        Raises KilonodeError with the end of the log of the daemon that failed.
        """
        for ballast in self.spec.processes:
            self._start_ballast(ballast)
        self._start_containerd()
        self._start_kubelet()
        wait_until(
            self._ready,
            what=f"node {self.name} Ready",
            timeout_s=READY_TIMEOUT_S,
            describe=lambda: self.daemons["kubelet"].log_tail(1500),
        )
        self.pods.start()

    def _start_ballast(self, ballast: Ballast) -> None:
        wait_until_held(self._start(ballast.name, hold_argv(ballast, self.folder)))

    def _start_containerd(self) -> None:
        restricted = not has_capability(CAP_SYS_RESOURCE)
        text = config.containerd_config(self.folder, restrict_oom_scores=restricted)
        (self.folder / "containerd.toml").write_text(text)
        (self.folder / "cni/net.d/10-loopback.conflist").write_text(config.LOOPBACK_CNI)
        daemon = self._start_daemon("containerd", f"--config={self.folder / 'containerd.toml'}")

        def listening() -> bool | None:
            daemon.require_alive()
            return config.containerd_socket(self.folder).exists() or None

        wait_until(
            listening, what="containerd's socket", timeout_s=SOCKET_TIMEOUT_S, describe=daemon.log_tail
        )
        if self.spec.pods:
            self.pods.import_image(config.containerd_socket(self.folder), self.folder, snapshotter="native")

    def _start_kubelet(self) -> None:
        file = self.folder / "kubelet.yaml"
        file.write_text(
            config.kubelet_config(
                self.folder,
                ca_file=self.endpoint.ca_file or "",
                oom_score_adj=self.oom_scores.applied["kubelet"],
                pods_cgroup=self.cgroup.kernel_path if self.spec.pods else None,
            )
        )
        self._start_daemon(
            "kubelet",
            f"--config={file}",
            f"--kubeconfig={self.endpoint.kubeconfig}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet/pki'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            f"--node-labels={','.join(f'{name}={value}' for name, value in config.NODE_LABELS.items())}",
            "-v=2",
        )

    def _start_daemon(self, name: str, *arguments: str) -> Daemon:
        return self._start(
            name,
            [self.executables.bin / name, *arguments],
            netns=self.netns,
            binds={self.folder / "host" / path[1:]: Path(path) for path in _BUILT_IN_FOLDERS.get(name, ())},
            env={
                "PATH": f"{self.executables.bin}:/usr/sbin:/usr/bin:/sbin:/bin",
                "LD_LIBRARY_PATH": str(self.executables.lib),
                "XTABLES_LIBDIR": str(self.executables.xtables),
            },
        )

    def _start(self, name: str, argv: Sequence[str | Path], **options: Any) -> Daemon:
        return self.supervisor.start(
            name,
            lambda: Daemon.start(
                name,
                argv,
                log_path=self.folder / "logs" / f"{name}.log",
                cgroup_procs=self.home.procs_path,
                oom_score_adj=self.oom_scores.applied[name],
                **options,
            ),
        )

    def _ready(self) -> bool | None:
        self.daemons["kubelet"].require_alive()
        self.daemons["containerd"].require_alive()
        if self.endpoint.is_lost():
            raise ClusterLostError(self.endpoint.url)
        return self.node_condition() == "True" or None

    def node_condition(self) -> str | None:
        return node_condition(self.endpoint, self.name)

    def label_zone(self, zone: str) -> None:
        label_node(self.endpoint, self.name, zone=zone)

    def _unregister(self) -> None:
        self.pods.remove()
        unregister(self.endpoint, self.name)
