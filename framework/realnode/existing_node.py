"""A real node of a cluster that was there before: looked at, and never changed.

How much can be seen depends on where it is. In a container of this host its kubelet's process leads to
everything: its network namespace, its memory cgroup, the kernel's records of its processes. Elsewhere a
command that the user names (``docker exec {node}``, ``ssh root@{node}``) gives the ruleset, the cgroup's
counters, polled processes and the kernel log; as much is seen of this machine where it is the node itself.
Without one there is what the API server tells: the node's status and lease, and kube-proxy's log where that
is verbose enough. The rest is unknown, with the reason.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from framework import network
from framework.cgroup import MemoryCgroup, cgroup_of, memory_cgroup
from framework.cgroup_counters import CgroupReading
from framework.cluster import ApiEndpoint, ExistingCluster
from framework.errors import KilonodeError, MissingRequirementError
from framework.lazy import LazyModule
from framework.ledger import Ledger, Netns
from framework.outcome import (
    Blindness,
    Component,
    DaemonRecord,
    OomScores,
    PodRecord,
    ProcessExit,
    Restart,
    Unseen,
)
from framework.process import executable_name
from framework.realnode.counters import COUNTER_FILES, parse_counters
from framework.realnode.node import PodLog, daemon_record, node_condition
from framework.remote import Remote
from framework.spec import DAEMON_NAMES, RealNodeSpec, require_version
from framework.units import mib, parse_bytes

if TYPE_CHECKING:
    import kubernetes
else:
    kubernetes = LazyModule("kubernetes")

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
KUBE_SYSTEM: Final = "kube-system"
MEMORY_TOLERANCE: Final = 0.1
"""A machine that is sold with 16 GiB has less for Linux."""
VERBOSITY_MIN: Final = 2
"""At which kube-proxy logs its syncs."""
LOG_TAIL_LINES: Final = 30
NO_SCORES: Final = OomScores(policy="production", asked={}, applied={}, shift=0, capped=())
_VERSION: Final = re.compile(r"v?(\d+\.\d+\.\d+)")
_VERBOSITY: Final = re.compile(r"--?v=(\d+)")
_INIT_SCOPE: Final = "/init.scope"


class ExistingNode:
    """One real node; see ``node.Node``."""

    is_ours = False
    transactions: tuple[Path, ...] = ()
    oom_scores = NO_SCORES

    def __init__(self, spec: RealNodeSpec, name: str, *, cluster: ExistingCluster, ledger: Ledger) -> None:
        self.spec = spec
        self.name = name
        self.endpoint: ApiEndpoint = cluster.endpoint
        self._template = cluster.settings.node_command
        self._ledger = ledger
        self._things: tuple[Netns, ...] = ()
        self.netns: str | None = None
        self.cgroup: MemoryCgroup | None = None
        self.remote: Remote | None = None
        self._node = self._read_node()
        self._kube_proxy = self._read_kube_proxy()

    @classmethod
    def prepare(
        cls, spec: RealNodeSpec, name: str, *, cluster: ExistingCluster, ledger: Ledger
    ) -> ExistingNode:
        """Look at a node. Raises MissingRequirementError where it is not what ``spec`` asks for."""
        node = cls(spec, name, cluster=cluster, ledger=ledger)
        try:
            node._find_on_this_host()
            node._find_by_command()
            refuse_others(spec, name, memory_bytes=node.memory_bytes, kube_proxy=node.kube_proxy_version)
        except BaseException:
            node.stop()
            raise
        return node

    def _read_node(self) -> Any:
        with self.endpoint.client() as client:
            return kubernetes.client.CoreV1Api(client).read_node(self.name)

    def _read_kube_proxy(self) -> Any:
        """kube-proxy's pod on this node; None where it has none that is called so."""
        with self.endpoint.client() as client:
            pods = kubernetes.client.CoreV1Api(client).list_namespaced_pod(
                KUBE_SYSTEM, field_selector=f"spec.nodeName={self.name}"
            )
        found = [pod for pod in pods.items if pod.metadata.name.startswith("kube-proxy")]
        return found[0] if found else None

    def _find_on_this_host(self) -> None:
        if self._node.status.node_info.boot_id != BOOT_ID.read_text().strip():
            return
        pid = kubelet_of(self.name)
        if pid is None:
            return
        self.cgroup = _cgroup_of_machine(pid)
        netns = f"kilonode-{self._ledger.run_id}-{self.name}"
        self._things = (Netns(netns),)
        self._ledger.record(self._things[0])
        network.name_netns(netns, pid)
        self.netns = netns

    def _find_by_command(self) -> None:
        """Elsewhere the user's; this machine, where it is the node and no other is on it, needs no more."""
        command = command_of(self._template, self.name)
        if self.netns is None and command:
            self.remote = Remote.ask(command)
        elif self.netns is not None and self.cgroup is None and len(kubelets()) == 1:
            self.remote = Remote.ask(("env",))

    @property
    def address(self) -> str:
        return str(next(a.address for a in self._node.status.addresses if a.type == "InternalIP"))

    @property
    def memory_bytes(self) -> int:
        """Its memory cgroup's limit where it has one that can be seen, else what its kubelet sees."""
        counters = self.counters()
        if counters is not None and counters.limit_bytes is not None:
            return counters.limit_bytes
        return parse_bytes(str(self._node.status.capacity["memory"]), where=self.name)

    @property
    def kube_proxy_version(self) -> str | None:
        """By its pod's image tag, else by what it says through the node command; None where neither tells."""
        image = str(self._kube_proxy.spec.containers[0].image) if self._kube_proxy is not None else ""
        found = _VERSION.fullmatch(image.rpartition(":")[2].split("-")[0])
        if found is None and self.remote is not None:
            found = _VERSION.search(self.remote.text_of("kube-proxy", "--version") or "")
        return require_version(found[1], where=self.name) if found else None

    @property
    def unseen(self) -> tuple[Blindness, ...]:
        return blindness(
            self.name,
            is_here=self.netns is not None,
            has_cgroup=self.cgroup is not None,
            has_counters=self.counters() is not None,
            remotely=self._remotely,
            why_no_syncs=self._why_no_syncs(),
        )

    @cached_property
    def _remotely(self) -> dict[Unseen, str] | None:
        if self.remote is None:
            return None
        return {"exits": self.remote.why_no_processes(), "kills": self.remote.why_no_kills()}

    def _why_no_syncs(self) -> str:
        if self._kube_proxy is None:
            return f"{self.name} has no pod of kube-proxy whose log could be read"
        container = self._kube_proxy.spec.containers[0]
        level = verbosity([*(container.command or ()), *(container.args or ())])
        if level < VERBOSITY_MIN:
            return (
                f"kube-proxy on {self.name} runs with -v={level} and logs its syncs only from "
                f"-v={VERBOSITY_MIN} on"
            )
        return ""

    def counters(self) -> CgroupReading | None:
        """The memory cgroup's counters now; None where they can't be read."""
        if self.cgroup is not None:
            return self.cgroup.read()
        if self.remote is None:
            return None
        return parse_counters(self.remote.output_of("head", "-v", "-n", "100", *COUNTER_FILES))

    @property
    def kube_proxy_log(self) -> PodLog | None:
        if self._kube_proxy is None:
            return None
        return PodLog(self.endpoint, KUBE_SYSTEM, self._kube_proxy.metadata.name)

    @property
    def xtables(self) -> Path:
        self._refuse("rules of iptables mode can't be listed")

    def components(self) -> tuple[Component, ...]:
        info = self._node.status.node_info
        versions = {
            "kubelet": info.kubelet_version,
            "kube-proxy": self.kube_proxy_version,
            "kernel": info.kernel_version,
        }
        return tuple(
            Component(
                name=name,
                version=str(found).removeprefix("v"),
                source=f"node {self.name}",
                toolchain="",
                sha256="",
            )
            for name, found in versions.items()
            if found is not None
        )

    def boot(self) -> None:
        """It runs. Raises KilonodeError unless it is Ready."""
        if self.node_condition() != "True":
            raise KilonodeError(
                f"node {self.name} is not Ready", where=self.name, remedy="name another with --real-node"
            )

    def start_kube_proxy(self) -> None:
        """It runs."""

    def stop_kube_proxy(self) -> None:
        self._refuse("kube-proxy can't be restarted")

    def label_zone(self, zone: str) -> None:
        del zone
        self._refuse("labels can't be changed")

    def _refuse(self, what: str) -> NoReturn:
        raise MissingRequirementError(
            f"{what} on {self.name}: nothing is changed of a node that was there before",
            remedy="use --cluster embedded or kind for this",
        )

    def kube_proxy_metrics(self) -> str:
        raise OSError("kube-proxy's metrics are its node's own")

    def _pids(self) -> dict[str, int]:
        if self.cgroup is None:
            return {}
        found = {}
        for pid in self.cgroup.pids():
            program = executable_name(pid)
            if program in DAEMON_NAMES:
                found[program] = pid
        return found

    def is_alive(self, daemon: str) -> bool:
        """Whether it runs; one that can't be seen is not called dead."""
        return self.cgroup is None or daemon in self._pids()

    def require_alive(self, daemon: str) -> None:
        if not self.is_alive(daemon):
            raise KilonodeError(
                f"{daemon} on {self.name} has ended", where=self.name, remedy="look into the node"
            )

    def log_tail(self, daemon: str) -> str:
        log = self.kube_proxy_log
        return "\n".join(log.read().splitlines()[-LOG_TAIL_LINES:]) if daemon == "kube-proxy" and log else ""

    def daemon_records(self, exits: Sequence[ProcessExit]) -> tuple[DaemonRecord, ...]:
        del exits
        return tuple(daemon_record(name, pid, None, "daemon") for name, pid in self._pids().items())

    def pod_records(self) -> tuple[PodRecord, ...]:
        return ()

    def restarts(self, zero_s: float, exits: Sequence[ProcessExit]) -> tuple[Restart, ...]:
        del zero_s, exits
        return ()

    def node_condition(self) -> str | None:
        return node_condition(self.endpoint, self.name)

    def keep_logs(self, folder: Path) -> None:
        log = self.kube_proxy_log
        if log is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "kube-proxy.log").write_text(log.read())

    def stop(self) -> None:
        """Let go of it; it runs on."""
        if self._things:
            self._ledger.remove(self._things, whose="the node", where=self.name)
            self._things = ()


def command_of(template: str, node: str) -> tuple[str, ...]:
    """The words before a command that run it on ``node``; none without a template."""
    return tuple(word.replace("{node}", node) for word in shlex.split(template))


def verbosity(words: Sequence[str]) -> int:
    """The level of -v in a command line; klog's default is 0."""
    found = [_VERBOSITY.fullmatch(word) for word in words]
    return next((int(each[1]) for each in found if each is not None), 0)


def refuse_others(spec: RealNodeSpec, name: str, *, memory_bytes: int, kube_proxy: str | None) -> None:
    """Raises MissingRequirementError where a node is not what ``spec`` asks for; nothing makes it so."""
    problems = []
    if abs(memory_bytes - spec.memory_bytes) > MEMORY_TOLERANCE * spec.memory_bytes:
        problems.append(f"{mib(spec.memory_bytes)} MiB were asked for, it has {mib(memory_bytes)} MiB")
    if kube_proxy != spec.kube_proxy:
        runs = f"it runs {kube_proxy}" if kube_proxy else "its version is unknown"
        problems.append(f"kube-proxy {spec.kube_proxy} was asked for, {runs}")
    if spec.ballast:
        problems.append("ballast was asked for, and nothing is added to it")
    if spec.oom_policy != "production":
        problems.append(f"the OOM policy {spec.oom_policy} was asked for, its scores are its own")
    if spec.kube_proxy_config:
        problems.append("a configuration of kube-proxy was asked for, it has its own")
    if spec.text != "charged" or spec.capture_transactions:
        problems.append("other executables were asked for, it has its own")
    if spec.proxy_mode != "nftables":
        problems.append(f"{spec.proxy_mode} mode was asked for, only nftables mode can be read here")
    if problems:
        raise MissingRequirementError(
            f"node {name} is another than asked for: {'; '.join(problems)}",
            remedy="name one that is so with --real-node, or use --cluster kind",
        )


def blindness(
    name: str,
    *,
    is_here: bool,
    has_cgroup: bool,
    has_counters: bool,
    remotely: Mapping[Unseen, str] | None,
    why_no_syncs: str,
) -> tuple[Blindness, ...]:
    """What can't be seen of a node, and why.

    ``remotely`` has, for each kind of records that a command prefix could give, why it does not, or nothing;
    it is None without a prefix.
    """
    found: list[Blindness] = []
    elsewhere = f"{name} is not on this host"
    if remotely is None:
        elsewhere += ", and no --node-command was given"
    if is_here and not has_cgroup:
        elsewhere = f"{name} is this whole machine, and other kubelets run on it too"
    if not has_cgroup:
        whys = dict.fromkeys(_KERNELS, elsewhere) | dict(remotely or {})
        found += [Blindness(what=what, why=f"{_WORDS[what]}: {why}") for what, why in whys.items() if why]
    if not has_counters:
        why = elsewhere
        if remotely is not None:
            why = "the command shows no counters of it; version 2 has none in the machine's own cgroup"
        found.append(Blindness(what="cgroup", why=f"{_WORDS['cgroup']}: {why}"))
    if not is_here and remotely is None:
        found.append(Blindness(what="ruleset", why=f"{_WORDS['ruleset']}: {elsewhere}"))
    if why_no_syncs:
        found.append(Blindness(what="syncs", why=why_no_syncs))
    return tuple(found)


_KERNELS: Final[tuple[Unseen, ...]] = ("exits", "kills", "daemons")
_WORDS: Final[dict[Unseen, str]] = {
    "exits": "the memory and the ends of its processes are unknown",
    "kills": "OOM kills are unknown",
    "daemons": "whether its daemons were restarted is unknown",
    "cgroup": "the node's memory is unknown",
    "ruleset": "its ruleset is unknown",
}


def kubelets() -> tuple[int, ...]:
    """The pids of all kubelets that run on this host, in containers too."""
    pids = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return tuple(pid for pid in pids if executable_name(pid) == "kubelet")


def kubelet_of(node: str) -> int | None:
    """The kubelet of ``node`` among this host's processes, by the hostname of its root; None without."""
    for pid in kubelets():
        try:
            hostname = Path("/proc", str(pid), "root", "etc", "hostname").read_text().strip()
        except OSError:
            continue
        if hostname == node:
            return pid
    return None


def _cgroup_of_machine(kubelet: int) -> MemoryCgroup | None:
    """The memory cgroup that all processes of a kubelet's machine are in; None where that is the host.

    It is that of the first process in kubelet's pid namespace.
    """
    namespace = Path(f"/proc/{kubelet}/ns/pid").readlink()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if (folder / "ns/pid").readlink() != namespace:
                continue
            pids = re.search(r"^NSpid:\s+(.*)$", (folder / "status").read_text(), re.MULTILINE)
        except OSError:
            continue
        if pids is not None and pids[1].split()[-1] == "1" and len(pids[1].split()) > 1:
            path = (cgroup_of(int(folder.name)) or "").removesuffix(_INIT_SCOPE)
            return memory_cgroup(path.strip("/")) if path.strip("/") else None
    return None
