"""A real node that is a worker of kind's: a container with systemd, kubelet and containerd of kind's image.

For each measurement the worker is *booted anew*: its container was stopped, gets its memory limit and is
started, so that its memory cgroup, its network namespace and its ruleset begin empty; kubelet registers its
Node with its own credentials. The limit is the container's: systemd, journald and the pods' shims pay into it
as on a small machine.

kube-proxy runs as it does in production, a pod on the host network from kubeadm's own manifest, so its nft is
the image's. It is a pod of its own and not the DaemonSet's, because it is to start when it is measured. For
another version than the image's the executable alone is replaced, by one that is mounted from the host.

What the OOM and the restart policy ask for is said to systemd (drop-ins of kubelet.service and
containerd.service), to kubelet and to kube-proxy, as an administrator would.

Nothing watches from inside. The kernel's records, the cgroup's counters and the log files that kubelet keeps
are read from the host, and only a ballast's process is put into the container's cgroup from outside.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from framework import network, process
from framework.binaries import Binaries
from framework.binaries.identity import sha256_of, toolchain_of
from framework.cgroup import MemoryCgroup
from framework.cluster import ApiEndpoint, KindCluster
from framework.cluster.kind import (
    PROGRAMS_FOLDER,
    container_cgroup,
)
from framework.containers import Container, Engine
from framework.errors import KilonodeError, MissingRequirementError, TimeLimitError
from framework.lazy import LazyModule
from framework.ledger import Ledger, Netns
from framework.oom_scores import lowest_score, plan_scores
from framework.outcome import Component, DaemonRecord, OomScores, PodRecord, ProcessExit, Restart
from framework.process import Daemon, end_of, executable_name, start_ticks_of
from framework.realnode.ballast import hold_argv, wait_until_held
from framework.realnode.config import KUBE_PROXY_METRICS_PORT, merged
from framework.realnode.node import (
    ContainerLogs,
    OwnNode,
    daemon_record,
    label_node,
    node_condition,
    read_metrics,
    unregister,
)
from framework.realnode.pods import Pods, systemd_pod_cgroup
from framework.realnode.private_copy import evict
from framework.realnode.restarts import DAEMONS
from framework.realnode.supervisor import Ended, Supervisor
from framework.spec import Ballast, RealNodeSpec
from framework.ticker import Ticker
from framework.wait import wait_until

if TYPE_CHECKING:
    import kubernetes
else:
    kubernetes = LazyModule("kubernetes")

READY_TIMEOUT_S: Final = 120.0
"""systemd, containerd and kubelet start, two cores busy."""
KUBE_PROXY_TIMEOUT_S: Final = 60.0
JOURNAL_TIMEOUT_S: Final = 20.0
LOOK_INTERVAL_S: Final = 0.1
NAMESPACE: Final = "kube-system"
CONTAINERD_SOCKET: Final = Path("/run/containerd/containerd.sock")
IMAGES_PROGRAMS: Final = ("kubelet", "containerd", "containerd-shim-runc-v2", "runc")
"""Executables of the image that a node runs; other containers of the image share their pages."""
COMPONENTS: Final = ("kubelet", "containerd", "runc", "nft", "kube-proxy", "xtables-nft-multi")
"""What a result tells of a node."""
NFT: Final = "/usr/sbin/nft"
"""Where Debian has it, and kube-proxy's images too."""
EXIT_UNKNOWN: Final = 255
"""The exit code of a daemon of whose end there is no record."""
_UNITS: Final = {"kubelet": "kubelet.service", "containerd": "containerd.service"}
_DROP_IN: Final = "/etc/systemd/system/{unit}.d/90-kilonode.conf"
_KUBELET_CONFIG: Final = "/var/lib/kubelet/config.yaml"


@dataclass
class _Daemon:
    """A daemon as it was last seen; ``pid`` is 0 before the first time."""

    pid: int = 0
    start_ticks: int = 0
    ends: list[Ended] = field(default_factory=list)

    @property
    def is_alive(self) -> bool:
        return bool(self.pid) and start_ticks_of(self.pid) == self.start_ticks


class KindWorker(OwnNode):
    """One real node; see ``node.Node``."""

    def __init__(
        self, spec: RealNodeSpec, name: str, *, cluster: KindCluster, binaries: Binaries, ledger: Ledger
    ) -> None:
        self.spec = spec
        self.name = name
        self.netns = name
        self.folder = ledger.folder / "nodes" / name
        self.endpoint: ApiEndpoint = cluster.endpoint
        self.oom_scores: OomScores = plan_scores(spec, lowest=lowest_score())
        self.transactions: tuple[Path, ...] = ()
        self._cluster = cluster
        self._engine: Engine = cluster.engine
        self._binaries = binaries
        self._ledger = ledger
        self._things: tuple[Netns, ...] = ()
        self._container: Container
        self._began_utc_s = 0.0
        self.cgroup: MemoryCgroup
        self._pods: Pods | None = None
        self._ballast = Supervisor(spec)
        self._daemons = {daemon: _Daemon() for daemon in DAEMONS}
        self._ticker = Ticker("kilonode-kind-daemons", LOOK_INTERVAL_S, self._look)

    @classmethod
    def prepare(
        cls, spec: RealNodeSpec, *, cluster: KindCluster, binaries: Binaries, ledger: Ledger
    ) -> KindWorker:
        """Boot a free worker with its limit: its systemd has just begun when this returns.

        Raises MissingRequirementError for what a container of kind's can't do, and when no worker is free.
        """
        if spec.capture_transactions:
            raise MissingRequirementError(
                "a worker of kind's can't be a twin: its nft is inside kube-proxy's image",
                remedy="use --cluster embedded",
            )
        if spec.text == "host":
            raise MissingRequirementError(
                "a worker of kind's pays for the pages of its own executables",
                remedy='use --cluster embedded, or leave text at "charged"',
            )
        name = cluster.take_worker()
        node = cls(spec, name, cluster=cluster, binaries=binaries, ledger=ledger)
        try:
            node._power_on()
        except BaseException:
            node.stop()
            raise
        return node

    def _power_on(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_text_private()
        self._write_policies()
        for folder in self._engine.inspect(self.name).files:
            _evict_below(folder)
        self._ledger.record(Netns(self.netns))
        self._things = (Netns(self.netns),)
        self._began_utc_s = time.time()
        self._container = self._engine.start(self.name, memory_bytes=self.spec.memory_bytes)
        self.cgroup = container_cgroup(self._container)
        network.name_netns(self.netns, self._container.pid)
        if network.has_ipv6():
            network.enable_ipv6(self.netns)
        self._pods = Pods(
            self.name, self.cgroup, self.spec, self.endpoint, self._binaries, place=systemd_pod_cgroup
        )

    def _make_text_private(self) -> None:
        """Give the worker executables of its own, once: written anew they are files of its layer."""
        mark = self.folder / "private"
        if mark.exists():
            return
        for program in IMAGES_PROGRAMS:
            for folder in ("/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin"):
                copy = self.folder / program
                if self._engine.copy_out(self.name, f"{folder}/{program}", copy):
                    self._engine.copy_in(copy, self.name, f"{folder}/{program}")
                    copy.unlink()
                    break
        mark.touch()

    def _write_policies(self) -> None:
        files = {
            _DROP_IN.format(unit=unit): unit_drop_in(
                daemon,
                oom_score_adj=self.oom_scores.applied[daemon],
                restarts=self.spec.restart == "production",
            )
            for daemon, unit in _UNITS.items()
        }
        saved = self.folder / "kubelet.yaml"
        self._engine.copy_out(self.name, _KUBELET_CONFIG, saved)
        config = yaml.safe_load(saved.read_text()) | {"oomScoreAdj": self.oom_scores.applied["kubelet"]}
        self._engine.put(self.name, files | {_KUBELET_CONFIG: yaml.safe_dump(config)})

    @property
    def address(self) -> str:
        return self._container.address

    @property
    def xtables(self) -> Path:
        return self._binaries.system("xtables-nft-multi").path

    @property
    def kube_proxy_log(self) -> ContainerLogs:
        return ContainerLogs(self._pod_logs, f"{NAMESPACE}_{self._pod_name}_*/kube-proxy/*.log")

    @property
    def _pod_logs(self) -> Path:
        return self._volume / "log" / "pods"

    @property
    def _volume(self) -> Path:
        """The container's /var."""
        return self._container.files[-1]

    @property
    def _pod_name(self) -> str:
        return f"kube-proxy-{self.name}"

    def components(self) -> tuple[Component, ...]:
        """What the image says of itself, or else what is seen to run; and a kube-proxy that replaces it."""
        inside = self._cluster.image_components() or self._seen_components()
        kept = [each for each in inside if each.name in COMPONENTS]
        if self._replaces_kube_proxy:
            kept = [each for each in kept if each.name != "kube-proxy"]
            kept.append(self._binaries.get("kube-proxy", self.spec.kube_proxy).component())
        return tuple(kept)

    def _seen_components(self) -> tuple[Component, ...]:
        """Of an image of others: versions as kubelet and nft tell them, digests of what the processes run."""
        with self.endpoint.client() as client:
            info = kubernetes.client.CoreV1Api(client).read_node(self.name).status.node_info
        told = {
            "kubelet": str(info.kubelet_version).removeprefix("v"),
            "containerd": str(info.container_runtime_version).removeprefix("containerd://"),
            "kube-proxy": self._cluster.version,
        }
        source = f"in {self._cluster.image}"
        seen = [
            component_at(name, told[name], Path(f"/proc/{daemon.pid}/exe"), source=source)
            for name, daemon in self._daemons.items()
            if daemon.is_alive
        ]
        kube_proxy = self._daemons["kube-proxy"]
        if kube_proxy.is_alive:
            version = nft_version(kube_proxy.pid)
            seen.append(
                component_at("nft", version, Path(f"/proc/{kube_proxy.pid}/root{NFT}"), source=source)
            )
        return tuple(seen)

    @property
    def _replaces_kube_proxy(self) -> bool:
        return self.spec.kube_proxy != self._cluster.version

    def boot(self) -> None:
        for ballast in self.spec.processes:
            self._start_ballast(ballast)
        wait_until(
            lambda: self.node_condition() == "True" or None,
            what=f"node {self.name} Ready",
            timeout_s=READY_TIMEOUT_S,
            interval_s=LOOK_INTERVAL_S * 2,
            describe=lambda: self.log_tail("kubelet"),
            remedy=f"look into it: {self._engine.program} exec {self.name} journalctl -u kubelet",
        )
        self._ticker.start()
        if self._pods is not None and self.spec.pods:
            socket = Path("/proc", str(self._container.pid), "root", *CONTAINERD_SOCKET.parts[1:])
            self._pods.import_image(socket, self.folder, snapshotter="overlayfs")
            self._pods.start()

    def _start_ballast(self, ballast: Ballast) -> None:
        argv = hold_argv(ballast, self.folder)
        daemon = self._ballast.start(
            ballast.name,
            lambda: Daemon.start(
                ballast.name,
                argv,
                log_path=self.folder / "logs" / f"{ballast.name}.log",
                cgroup_procs=self._ballast_cgroup().procs_path,
                oom_score_adj=self.oom_scores.applied[ballast.name],
            ),
        )
        wait_until_held(daemon)

    def _ballast_cgroup(self) -> MemoryCgroup:
        """A child of the container's cgroup: in version 2 systemd leaves no room for processes in it."""
        cgroup = MemoryCgroup(self.cgroup.path / "ballast", self.cgroup.mode, self.cgroup.tree)
        cgroup.create()
        return cgroup

    def start_kube_proxy(self) -> None:
        if self._replaces_kube_proxy:
            self._provide_kube_proxy()
        with self.endpoint.client() as client:
            core = kubernetes.client.CoreV1Api(client)
            template = client.sanitize_for_serialization(
                kubernetes.client.AppsV1Api(client).read_namespaced_daemon_set("kube-proxy", NAMESPACE)
            )["spec"]["template"]
            base = core.read_namespaced_config_map("kube-proxy", NAMESPACE).data
            data = {**base, "config.conf": self._kube_proxy_config(base["config.conf"])}
            (self.folder / "kube-proxy.yaml").write_text(data["config.conf"])
            core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": self._pod_name}, "data": data})
            pod = kube_proxy_pod(
                template,
                self._pod_name,
                node=self.name,
                program=f"{PROGRAMS_FOLDER}/kube-proxy" if self._replaces_kube_proxy else None,
                restarts=self.spec.restart == "production",
            )
            core.create_namespaced_pod(NAMESPACE, pod)
        wait_until(
            self._kube_proxy_came,
            what="kube-proxy started by kubelet",
            timeout_s=KUBE_PROXY_TIMEOUT_S,
            interval_s=LOOK_INTERVAL_S,
            describe=self._kube_proxy_status,
            remedy="read kubelet's and containerd's journal",
        )

    def _kube_proxy_came(self) -> bool | None:
        return self._daemons["kube-proxy"].is_alive or None

    def _provide_kube_proxy(self) -> None:
        """A copy of this worker's own, out of the page cache, so that the node pays for its pages."""
        program = self._cluster.programs_of(self.name) / "kube-proxy"
        program.unlink(missing_ok=True)
        shutil.copy2(self._binaries.get("kube-proxy", self.spec.kube_proxy).path, program)
        evict(program)

    def _kube_proxy_config(self, kubeadms: str) -> str:
        own: dict[str, Any] = {
            "mode": self.spec.proxy_mode,
            "metricsBindAddress": f"0.0.0.0:{KUBE_PROXY_METRICS_PORT}",
            "nodePortAddresses": ["primary"],
            "oomScoreAdj": self.oom_scores.applied["kube-proxy"],
        }
        return yaml.safe_dump(merged(merged(yaml.safe_load(kubeadms), own), self.spec.kube_proxy_config))

    def stop_kube_proxy(self) -> None:
        self._keep_kube_proxy_log()
        daemon, self._daemons["kube-proxy"] = self._daemons["kube-proxy"], _Daemon()
        self._delete_kube_proxy()
        wait_until(
            lambda: not daemon.is_alive or None,
            what="the end of kube-proxy",
            timeout_s=KUBE_PROXY_TIMEOUT_S,
            interval_s=LOOK_INTERVAL_S,
            remedy="read kubelet's journal",
        )
        wait_until(
            lambda: self._read_kube_proxy() is None or None,
            what="the end of kube-proxy's pod",
            timeout_s=KUBE_PROXY_TIMEOUT_S,
            interval_s=LOOK_INTERVAL_S,
            remedy="read kubelet's journal",
        )

    def _delete_kube_proxy(self, **options: Any) -> None:
        with self.endpoint.client() as client:
            core = kubernetes.client.CoreV1Api(client)
            for delete in (core.delete_namespaced_pod, core.delete_namespaced_config_map):
                try:
                    delete(self._pod_name, NAMESPACE, **options)
                except kubernetes.client.ApiException as error:
                    if error.status != 404:
                        raise

    def _read_kube_proxy(self) -> Any:
        """kube-proxy's pod; None when it is gone."""
        with self.endpoint.client() as client:
            pods = kubernetes.client.CoreV1Api(client).list_namespaced_pod(
                NAMESPACE, field_selector=f"metadata.name={self._pod_name}"
            )
        return pods.items[0] if pods.items else None

    def _kube_proxy_status(self) -> str:
        pod = self._read_kube_proxy()
        return "there is no pod" if pod is None else str(pod.status.container_statuses or pod.status.phase)

    def kube_proxy_metrics(self) -> str:
        return read_metrics(self.address)

    def is_alive(self, daemon: str) -> bool:
        return self._daemons[daemon].is_alive

    def require_alive(self, daemon: str) -> None:
        if not self.is_alive(daemon):
            raise KilonodeError(
                f"{daemon} on {self.name} has ended: {self.log_tail(daemon).strip()[-1500:]}",
                where=self.name,
                remedy="read its log",
            )

    def log_tail(self, daemon: str) -> str:
        if daemon == "kube-proxy":
            logs = sorted(self._pod_logs.glob(self.kube_proxy_log.pattern))
            return end_of(logs[-1], 4000).decode(errors="replace") if logs else self._kube_proxy_status()
        return self._journal(daemon, "--lines=15")

    def _journal(self, daemon: str, *options: str) -> str:
        """What a unit logged since the worker was started for this node, in which it is not the first.

        It is read on the host where that has journalctl: in a node that starves no program comes to its end.
        """
        since = f"--since=@{self._began_utc_s:.6f}"
        words = ["journalctl", "--no-pager", since, *options, f"--unit={daemon}"]
        run = Path("/proc", str(self._container.pid), "root", "run", "log", "journal")
        folders = [folder for folder in (self._volume / "log" / "journal", run) if _has_files(folder)]
        if folders and shutil.which("journalctl"):
            return process.run([*words, f"--directory={folders[0]}"], timeout_s=JOURNAL_TIMEOUT_S).text
        try:
            return self._engine.execute(self.name, words, timeout_s=JOURNAL_TIMEOUT_S)
        except TimeLimitError as error:
            return f"The journal could not be read inside the node: {error.what}\n"

    def _look(self) -> None:
        """Find daemons that came, and note those that went."""
        unknown = [name for name, daemon in self._daemons.items() if not daemon.is_alive]
        if not unknown:
            return
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        pids = {executable_name(pid): pid for pid in self.cgroup.pids()}
        for name in unknown:
            daemon = self._daemons[name]
            if daemon.pid and (not daemon.ends or daemon.ends[-1].pid != daemon.pid):
                delay_s = DAEMONS[name].delay_s(len(daemon.ends))
                daemon.ends.append(Ended(name, daemon.pid, EXIT_UNKNOWN, now_s, delay_s))
            pid = pids.get(name)
            ticks = start_ticks_of(pid) if pid is not None else None
            if pid is None or ticks is None:
                continue
            if daemon.ends and daemon.ends[-1].restarted_s is None:
                daemon.ends[-1] = replace(daemon.ends[-1], restarted_s=now_s)
            daemon.pid, daemon.start_ticks = pid, ticks

    def restarts(self, zero_s: float, exits: Sequence[ProcessExit]) -> tuple[Restart, ...]:
        if self.spec.restart == "none":
            return ()
        seen = [end for daemon in self._daemons.values() for end in daemon.ends]
        daemons = [replace(end, exit_code=_exit_code(end.pid, exits)) for end in seen]
        ended = sorted([*self._ballast.ends, *daemons], key=lambda end: end.ended_s)
        return tuple(end.record(zero_s) for end in ended)

    def daemon_records(self, exits: Sequence[ProcessExit]) -> tuple[DaemonRecord, ...]:
        records = [
            daemon_record(name, daemon.pid, daemon.exit_code, "ballast")
            for name, daemon in self._ballast.daemons.items()
        ]
        records += [
            daemon_record(
                name, daemon.pid, None if daemon.is_alive else _exit_code(daemon.pid, exits), "daemon"
            )
            for name, daemon in self._daemons.items()
            if daemon.pid
        ]
        return tuple(records)

    def pod_records(self) -> tuple[PodRecord, ...]:
        return self._pods.records() if self._pods is not None else ()

    def node_condition(self) -> str | None:
        return node_condition(self.endpoint, self.name)

    def label_zone(self, zone: str) -> None:
        label_node(self.endpoint, self.name, zone=zone)

    def keep_logs(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._keep_kube_proxy_log()
        for source in (*self.folder.glob("logs/*"), *self.folder.glob("*.yaml")):
            shutil.copy2(source, folder / source.name)
        for daemon in _UNITS:
            (folder / f"{daemon}.log").write_text(self._journal(daemon, "--output=short-precise"))

    def _keep_kube_proxy_log(self) -> None:
        """kubelet removes the logs of a pod that is deleted."""
        kept = self.folder / "logs"
        kept.mkdir(parents=True, exist_ok=True)
        for log in self._pod_logs.glob(self.kube_proxy_log.pattern):
            uid = log.parent.parent.name.rpartition("_")[2]
            shutil.copy2(log, kept / f"kube-proxy.{uid[:8]}.{log.name}")

    def _unregister(self) -> None:
        self._delete_kube_proxy(grace_period_seconds=0)
        if self._pods is not None:
            self._pods.remove()
        unregister(self.endpoint, self.name)

    def stop(self) -> None:
        self._ticker.stop()
        self._ballast.stop()
        self._engine.kill(self.name)
        try:
            if not self._cluster.is_gone:
                self._unregister()
        finally:
            self._ledger.remove(self._things, whose="the node", where=self.name)
            shutil.rmtree(self.folder / "logs", ignore_errors=True)
            self._cluster.give_back(self.name)


def component_at(name: str, version: str, path: Path, *, source: str) -> Component:
    """An executable that is looked at through /proc, by way of a process."""
    return Component(
        name=name, version=version, source=source, toolchain=toolchain_of(path), sha256=sha256_of(path)
    )


def nft_version(kube_proxy_pid: int) -> str:
    """The version of the nft that a kube-proxy runs, in its container."""
    said = process.run(["nsenter", "--mount", f"--target={kube_proxy_pid}", "--", NFT, "--version"]).text
    return said.split()[1].removeprefix("v")


def unit_drop_in(daemon: str, *, oom_score_adj: int, restarts: bool) -> str:
    """What systemd is told of a daemon's unit: its score, and whether and when it starts again."""
    policy = f"Restart=always\nRestartSec={DAEMONS[daemon].first_s:g}" if restarts else "Restart=no"
    return f"[Unit]\nStartLimitIntervalSec=0\n[Service]\nOOMScoreAdjust={oom_score_adj}\n{policy}\n"


def kube_proxy_pod(
    template: Mapping[str, Any], name: str, *, node: str, program: str | None, restarts: bool
) -> dict[str, Any]:
    """The pod that the DaemonSet's template makes on ``node``, with a ConfigMap ``name`` of its own.

    It lacks the DaemonSet's label, or that would adopt it. ``program`` is run in the place of the image's.
    """
    spec = dict(template["spec"])
    spec.pop("nodeSelector", None)
    (container,) = spec["containers"]
    command = [program or container["command"][0], *container["command"][1:], "-v=2"]
    volumes = [
        volume | {"configMap": {**volume["configMap"], "name": name}} if "configMap" in volume else volume
        for volume in spec["volumes"]
    ]
    mounts = list(container["volumeMounts"])
    if program is not None:
        folder = str(PROGRAMS_FOLDER)
        volumes.append({"name": "programs", "hostPath": {"path": folder, "type": "Directory"}})
        mounts.append({"name": "programs", "mountPath": folder, "readOnly": True})
    container = container | {"command": command, "volumeMounts": mounts}
    spec |= {
        "nodeName": node,
        "restartPolicy": "Always" if restarts else "Never",
        "containers": [container],
        "volumes": volumes,
    }
    return {"metadata": {"name": name, "labels": {"kilonode.dev/kube-proxy": node}}, "spec": spec}


def _exit_code(pid: int, exits: Sequence[ProcessExit]) -> int:
    """How a daemon ended, by the kernel's record; negative for a signal."""
    for end in exits:
        if end.pid == pid:
            return -end.signal if end.signal is not None else end.exit_code or 0
    return EXIT_UNKNOWN


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def _evict_below(folder: Path) -> None:
    """Drop the page cache of every file below a folder of a stopped container."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            evict(path)
