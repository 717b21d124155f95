"""What every real node is to those who measure it, whatever it is made of.

A node is *prepared* (its place and limit exist, nothing runs), *booted* (Ready through its own kubelet, its
pods running) and runs kube-proxy from ``start_kube_proxy`` on. What it is made of, processes of this host or
a container of kind's, decides how each of these is done, and where its evidence lies.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol
from urllib.parse import urlencode

from framework.cgroup import MemoryCgroup
from framework.cgroup_counters import CgroupReading
from framework.cluster import ApiEndpoint
from framework.fleet import ZONE_LABEL
from framework.lazy import LazyModule
from framework.outcome import (
    Blindness,
    Component,
    DaemonRecord,
    Measure,
    OomScores,
    PodRecord,
    ProcessExit,
    Restart,
)
from framework.process import oom_score_adj_of
from framework.realnode.config import KUBE_PROXY_METRICS_PORT
from framework.remote import Remote
from framework.spec import RealNodeSpec

if TYPE_CHECKING:
    import kubernetes
else:
    kubernetes = LazyModule("kubernetes")

METRICS_TIMEOUT_S: Final = 3.0
"""It answers in milliseconds, unless its node starves."""


@dataclass(frozen=True)
class ContainerLogs:
    """The output of a container, as a container runtime writes it: files ``0.log``, ``1.log`` and so on.

    ``pattern`` finds them below ``folder``. Their times are in UTC.
    """

    folder: Path
    pattern: str


@dataclass(frozen=True)
class PodLog:
    """A pod's output, as the API server gives it. Its times are in the container's time zone, UTC."""

    endpoint: ApiEndpoint
    namespace: str
    pod: str

    def read(self) -> str:
        """All of it that its kubelet still has; empty where it is refused or gone."""
        return self._ask({})

    def read_since(self, stamp: str) -> str:
        """Its lines from the second of ``stamp`` on, all when that is empty, each with its time before it.

        The times have nine decimals (RFC3339NanoFixed of pkg/kubelet/types), and so sort as texts.
        """
        return self._ask({"timestamps": "true"} | ({"sinceTime": stamp} if stamp else {}))

    def _ask(self, options: dict[str, str]) -> str:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}/log"
        try:
            status, body = self.endpoint.get(f"{path}?{urlencode(options)}")
        except OSError:
            return ""
        return body.decode(errors="replace") if status == 200 else ""


class Node(Protocol):
    """One real node. ``name`` is its Node's; ``netns`` names its network namespace.

    Processes are asked for by name: ``containerd``, ``kubelet``, ``kube-proxy``.
    """

    @property
    def is_ours(self) -> bool:
        """Whether it was made for this run, and may be changed."""

    @property
    def unseen(self) -> tuple[Blindness, ...]:
        """What can't be recorded of it."""

    @property
    def remote(self) -> Remote | None:
        """How to run something on it, where it is elsewhere; then ``netns`` is None."""

    def counters(self) -> CgroupReading | None:
        """Its memory cgroup's counters, wherever they can be read."""

    @property
    def spec(self) -> RealNodeSpec: ...
    @property
    def name(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def netns(self) -> str | None: ...
    @property
    def cgroup(self) -> MemoryCgroup | None:
        """What everything on the node is charged to; it has the limit. None where it is not this host's."""

    @property
    def endpoint(self) -> ApiEndpoint: ...
    @property
    def oom_scores(self) -> OomScores: ...
    @property
    def kube_proxy_log(self) -> Path | ContainerLogs | PodLog | None:
        """kube-proxy's output: one file, in this machine's time zone, a container's, or a pod's."""

    @property
    def transactions(self) -> tuple[Path, ...]:
        """What kube-proxy handed to nft, oldest first, where the node captures it."""

    @property
    def xtables(self) -> Path:
        """The program that lists the rules of a node in iptables mode."""

    def components(self) -> tuple[Component, ...]:
        """Its executables, as a result records them."""

    def boot(self) -> None:
        """Start the node; Ready and its pods running when this returns, kube-proxy not started."""

    def start_kube_proxy(self) -> None:
        """Start kube-proxy; returns before its first sync."""

    def stop_kube_proxy(self) -> None:
        """End kube-proxy as a rollout would; its rules stay in the kernel."""

    def kube_proxy_metrics(self) -> str:
        """kube-proxy's metrics. Raises OSError when it doesn't answer."""

    def is_alive(self, daemon: str) -> bool: ...

    def require_alive(self, daemon: str) -> None:
        """Raises KilonodeError with the end of its output when a daemon has ended."""

    def log_tail(self, daemon: str) -> str: ...

    def daemon_records(self, exits: Sequence[ProcessExit]) -> tuple[DaemonRecord, ...]:
        """The node's long-lived processes as they are now; ``exits`` are what the kernel told of its ends."""

    def pod_records(self) -> tuple[PodRecord, ...]:
        """The node's ballast pods as they are now."""

    def restarts(self, zero_s: float, exits: Sequence[ProcessExit]) -> tuple[Restart, ...]:
        """Every end that the restart policy saw, on the clock whose zero is ``zero_s``."""

    def node_condition(self) -> str | None:
        """The status of the node's Ready condition; None while there is no Node."""

    def label_zone(self, zone: str) -> None:
        """The Node's zone label becomes ``zone``."""

    def keep_logs(self, folder: Path) -> None:
        """Copy the daemons' logs and configuration to ``folder``."""

    def stop(self) -> None:
        """End it, and remove the Node from the cluster and everything else from the machine."""


class OwnNode:
    """What is alike in all nodes that were made for the run: everything of them can be seen."""

    cgroup: MemoryCgroup

    @property
    def is_ours(self) -> bool:
        return True

    @property
    def unseen(self) -> tuple[Blindness, ...]:
        return ()

    @property
    def remote(self) -> Remote | None:
        return None

    def counters(self) -> CgroupReading | None:
        return self.cgroup.read()


def node_condition(endpoint: ApiEndpoint, name: str) -> str | None:
    """The status of a Node's Ready condition; None while there is no such Node, or it has none."""
    with endpoint.client() as client:
        items = kubernetes.client.CoreV1Api(client).list_node(field_selector=f"metadata.name={name}").items
    for item in items:
        for condition in item.status.conditions or ():
            if condition.type == "Ready":
                return str(condition.status)
    return None


def label_node(endpoint: ApiEndpoint, name: str, *, zone: str) -> None:
    """A Node's zone label becomes ``zone``."""
    with endpoint.client() as client:
        kubernetes.client.CoreV1Api(client).patch_node(name, {"metadata": {"labels": {ZONE_LABEL: zone}}})


def unregister(endpoint: ApiEndpoint, name: str) -> None:
    """Remove a Node from the cluster; one that is gone is fine."""
    with endpoint.client() as client:
        core = kubernetes.client.CoreV1Api(client)
        if core.list_node(field_selector=f"metadata.name={name}").items:
            core.delete_node(name)


def read_metrics(address: str) -> str:
    """kube-proxy's metrics on a node at ``address``. Raises OSError when it doesn't answer."""
    url = f"http://{address}:{KUBE_PROXY_METRICS_PORT}/metrics"
    with urllib.request.urlopen(url, timeout=METRICS_TIMEOUT_S) as answer:
        return str(answer.read().decode())


def daemon_record(
    name: str, pid: int, exit_code: int | None, role: Literal["daemon", "ballast"]
) -> DaemonRecord:
    """A long-lived process as the kernel knows it now; ``exit_code`` is None while it lives."""
    peak: Measure | None = None
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            peak = Measure(value=int(line.split()[1]) * 1024, source="poll", bound="exact")
    return DaemonRecord(
        name=name,
        pid=pid,
        exit_code=exit_code,
        memory_bytes_peak=peak,
        oom_score_adj=oom_score_adj_of(pid) or 0,
        role=role,
    )
