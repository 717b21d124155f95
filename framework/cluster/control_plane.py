"""What all control planes have in common: the order in which their components run.

A control plane runs in two steps. ``serve`` has etcd and kube-apiserver alone: objects are loaded without
controllers in the way, and the cost of a lease renewal is measured. ``control`` adds kube-controller-manager,
kube-scheduler and kwok, with the lease budget that follows from it. Both say what shall run; how a component
is started, ended and found is the provider's: kwokctl's binary runtime (``embedded``) or kind's containers.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import ClassVar, Final

from framework import process
from framework.binaries import Binary
from framework.cgroup import MemoryCgroup
from framework.cluster.api import ApiEndpoint, run_bulk
from framework.cluster.home import OWN_CLUSTER
from framework.cluster.lease_budget import (
    BULK_PARALLELISM,
    LOAD_PARALLELISM,
    LeaseBudget,
    RenewalCost,
)
from framework.cluster.renewals import measure_renewal_cpu_s
from framework.errors import KilonodeError, TimeLimitError
from framework.ledger import Ledger
from framework.outcome import Component
from framework.wait import wait_until

READY_TIMEOUT_S: Final = 180.0
"""kube-apiserver reads 100,000 nodes and leases into its caches before it is ready, 20 s on idle CPUs."""
READY_INTERVAL_S: Final = 0.2
READY_ANSWER_TIMEOUT_S: Final = 10.0
ETCD_STOP_TIMEOUT_S: Final = 60.0
STATELESS_STOP_TIMEOUT_S: Final = 2.0
"""kube-apiserver would wait a minute for its own watches to end; only etcd holds anything that must be
written."""
METRICS_TIMEOUT_S: Final = 10.0
BRIDGE_HOST: Final = 1
"""Last octet of the bridge's address."""
STORAGE: Final = ("etcd", "kube-apiserver")
CONTROLLERS: Final = ("kube-controller-manager", "kube-scheduler", "kwok")
METRICS_PORTS: Final = {"kube-controller-manager": 10257}
NO_FAKES: Final = 1
KUBELET_SYSCTLS: Final = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
"""Of the host, what kubelet sets at its start (setupKernelTunables in its
pkg/kubelet/cm/container_manager_linux.go)."""
_UNREADY: Final = re.compile(r"^node_collector_unhealthy_nodes_in_zone\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Tuning:
    """Environment variables by component, such as ``{"kube-apiserver": {"GOGC": "400"}}``."""

    envs: Mapping[str, Mapping[str, str]]


LOADING: Final = Tuning({"kube-apiserver": {"GOGC": "400", "GOMEMLIMIT": "8GiB"}})
"""Collect garbage rarely: nothing else runs, and memory is there."""
MEASURING: Final = Tuning(
    {
        "kube-apiserver": {"GOGC": "200", "GOMEMLIMIT": "10GiB"},
        "kube-controller-manager": {"GOGC": "75"},
    }
)


class Cluster(ABC):
    """What every cluster is to those who measure in it. What was created is in the ledger."""

    kind: ClassVar[str]
    name: str
    run_id: str
    home = OWN_CLUSTER
    """Where workloads go."""

    @property
    @abstractmethod
    def version(self) -> str:
        """kube-apiserver's."""

    @property
    @abstractmethod
    def kubeconfig(self) -> Path:
        """For use on the host."""

    @property
    @abstractmethod
    def endpoint(self) -> ApiEndpoint: ...

    @property
    @abstractmethod
    def budget(self) -> LeaseBudget:
        """The lease budget of the fakes."""

    @property
    @abstractmethod
    def lost(self) -> tuple[str, ...]:
        """The components that ended and without which no measurement goes on, by whoever's hand."""

    @property
    def is_gone(self) -> bool:
        """Whether there is no use in asking it anything."""
        return bool(self.lost)

    def component_pids(self) -> dict[str, tuple[int, ...]]:
        """The processes of each component that should run, in the order in which they need each other; none
        where it ended. Empty where they are somebody else's."""
        return {}

    def paused_components(self) -> frozenset[str]:
        """The components that a signal stopped (SIGSTOP) and that nobody let go on."""
        return frozenset()

    @abstractmethod
    def components(self) -> tuple[Component, ...]:
        """Every executable of it that is known, as a result records it."""

    def save_logs(self) -> None:  # noqa: B027
        """Have the components' logs in the run's folder, if they are elsewhere and can be had."""

    @abstractmethod
    def unready_nodes(self) -> int | None:
        """Nodes that the node controller calls NotReady; None when nobody says."""


class ControlPlane(Cluster):
    """A control plane of the run's own, whose real nodes are on one bridge."""

    def __init__(
        self, ledger: Ledger, binaries: dict[str, Binary], subnet: IPv4Network, *, first_node_host: int
    ) -> None:
        self.run_id = ledger.run_id
        self.name = f"kilonode-{ledger.run_id}"
        self.binaries = binaries
        self.subnet = subnet
        self.netns = self.name
        """The network namespace of the control plane."""
        self.address = str(subnet[BRIDGE_HOST])
        """The bridge's."""
        self.folder = ledger.folder / "cluster"
        self._next_node_host = first_node_host
        self._running: tuple[str, ...] = ()
        self._tuning = MEASURING
        self._budget: LeaseBudget | None = None
        self._renewal_cost: RenewalCost | None = None

    @property
    @abstractmethod
    def cgroup(self) -> MemoryCgroup:
        """What the control plane's processes are in; it has no limit."""

    @property
    def etcd_data(self) -> Path | None:
        """etcd's data folder, replaceable while nothing runs; None where it holds more than fakes."""
        return None

    @property
    @abstractmethod
    def logs(self) -> Path:
        """The folder with the components' logs."""

    @abstractmethod
    def attach(self, netns: str, *, link: str, address: str) -> None:
        """Connect a namespace to the bridge, by ``link`` there and ``eth0`` with ``address`` inside."""

    @abstractmethod
    def detach(self, link: str) -> None:
        """Remove what ``attach`` made."""

    @abstractmethod
    def _start(self, *components: str) -> None:
        """Have ``components`` and storage running beside what runs, and the API server ready."""

    @abstractmethod
    def _stop(self, component: str) -> None:
        """End a component so that nobody starts it again. It may not run."""

    @abstractmethod
    def _pids(self, component: str) -> tuple[int, ...]:
        """The processes of a component."""

    def serve(self, tuning: Tuning) -> None:
        """Have etcd and kube-apiserver running, tuned so, and nothing else; Ready when this returns."""
        if self._tuning != tuning:
            self.stop("kube-apiserver")
        self.stop(*CONTROLLERS)
        self._tuning = tuning
        self._start(*STORAGE)

    def plan(self, budget: LeaseBudget) -> None:
        """Decide what the controllers and kwok run with when they are started; none may run."""
        self._budget = budget

    def control(self, budget: LeaseBudget) -> None:
        """Have the controllers and kwok running with ``budget``, started again where it is another one.

        A kwok that starts again does not know the leases of the one before it as its own, and renews them
        only when they expired: free them first (``Fleet.free_leases``).
        """
        if self._budget is None or not self._budget.same_times(budget):
            self.stop(*CONTROLLERS)
        self._budget = budget
        self._start(*CONTROLLERS)

    def start_kwok(self) -> None:
        """Have kwok running with the planned budget, the controllers not before ``control``."""
        self._start("kwok")

    def stop(self, *components: str) -> None:
        """End components, all without names, by SIGTERM and then by SIGKILL. None may run."""
        for component in components or tuple(reversed((*STORAGE, *CONTROLLERS))):
            self._stop(component)
            self._running = tuple(running for running in self._running if running != component)

    def stop_controllers(self) -> None:
        """End the controllers and kwok; ``control`` starts them again."""
        self.stop(*CONTROLLERS)

    @contextmanager
    def loading_pods(self) -> Iterator[int]:
        """Without controllers while pods are created; gives how many requests may be under way.

        They would create pods of their own, and look at each. kwok stays if it runs. Afterwards it and
        kube-controller-manager run, and the rest where it ran before.
        """
        before = self._running
        self.stop(*(component for component in CONTROLLERS if component != "kwok"))
        try:
            yield BULK_PARALLELISM if "kwok" in before else LOAD_PARALLELISM
        finally:
            self._start(*before, "kwok", "kube-controller-manager")

    @property
    def budget(self) -> LeaseBudget:
        """The lease budget that the controllers and kwok run with."""
        assert self._budget is not None  # noqa: S101 - set by control()
        return self._budget

    @property
    def renewal_cost(self) -> RenewalCost:
        """What a lease renewal costs here, measured when it is first asked for. Only storage may run then."""
        if self._renewal_cost is None:
            cpu_s: float = run_bulk(
                lambda bulk: measure_renewal_cpu_s(bulk, lambda: self.cpu_s(*STORAGE)), self.endpoint
            )
            self._renewal_cost = RenewalCost(cpu_s=cpu_s, cpus=os.cpu_count() or 1)
        return self._renewal_cost

    def forget_everything(self) -> None:
        """Remove etcd's data, where it can be replaced. Nothing may run."""
        data = self.replaceable_data()
        if data.is_symlink():
            data.unlink()
        shutil.rmtree(data, ignore_errors=True)

    def replaceable_data(self) -> Path:
        """``etcd_data``. Raises KilonodeError where it is None."""
        if self.etcd_data is None:
            raise KilonodeError(
                f"etcd's data of a {self.kind} cluster can't be replaced: it holds more than fakes",
                where=self.name,
                remedy="register the fleet instead",
            )
        return self.etcd_data

    def component_pids(self) -> dict[str, tuple[int, ...]]:
        return {name: self._pids(name) for name in (*STORAGE, *CONTROLLERS) if name in self._running}

    def paused_components(self) -> frozenset[str]:
        pids = self.component_pids()
        return frozenset(name for name in pids if any(map(process.is_stopped, pids[name])))

    @property
    def lost(self) -> tuple[str, ...]:
        return tuple(name for name in STORAGE if name in self._running and not self._pids(name))

    def cpu_s(self, *components: str) -> float:
        """CPU time that running components used so far."""
        return sum(process.cpu_s_of(pid) for component in components for pid in self._pids(component))

    def memory_bytes(self, component: str) -> int:
        """Resident memory of a component now; 0 when it doesn't run."""
        return sum(process.memory_bytes_of(pid) for pid in self._pids(component))

    def unready_nodes(self) -> int | None:
        """Nodes that the node controller calls NotReady, by its own count; None when it doesn't say."""
        try:
            metrics = self.metrics("kube-controller-manager")
        except OSError:
            return None
        counts = [float(count) for count in _UNREADY.findall(metrics)]
        return int(sum(counts)) if counts else None

    def metrics(self, component: str) -> str:
        """A controller's own metrics, read inside its namespace, on whose loopback it listens.

        Raises OSError when it doesn't answer.
        """
        inside = replace(self.endpoint, url=f"https://127.0.0.1:{METRICS_PORTS[component]}", netns=self.netns)
        status, body = inside.get("/metrics", timeout_s=METRICS_TIMEOUT_S)
        if status != 200:
            raise OSError(f"{component} answered {status}: {body[:200].decode(errors='replace')}")
        return body.decode()

    @property
    def endpoint(self) -> ApiEndpoint:
        return replace(ApiEndpoint.from_kubeconfig(self.kubeconfig), is_lost=lambda: self.is_gone)

    def link(self, suffix: str) -> str:
        """A name for a link of this cluster, distinct among the links of this machine."""
        return f"kn{self.run_id}{suffix}"

    def next_node_address(self) -> str:
        """An address on the bridge for one more real node."""
        host, self._next_node_host = self._next_node_host, self._next_node_host + 1
        if host >= self.subnet.num_addresses - 1:
            raise KilonodeError("the bridge has no address left for a real node", remedy="start a new run")
        return str(self.subnet[host])

    def signal(self, component: str, signum: signal.Signals) -> None:
        """Send ``signum`` to one component, such as SIGSTOP to pause kwok."""
        for pid in self._pids(component):
            os.kill(pid, signum)

    def _end_processes(self, component: str) -> None:
        """SIGTERM, then SIGKILL, and wait for their end."""
        patience_s = ETCD_STOP_TIMEOUT_S if component == "etcd" else STATELESS_STOP_TIMEOUT_S
        for signum, timeout_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, process.KILL_TIMEOUT_S)):
            self.signal(component, signum)
            self.signal(component, signal.SIGCONT)
            with suppress(TimeLimitError):
                wait_until(
                    lambda: not self._pids(component) or None,
                    what=f"the end of {component}",
                    timeout_s=timeout_s,
                )
        if self._pids(component):
            raise TimeLimitError(f"{component} did not end", remedy="see `ps -o stat,wchan`")

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

    def _wait_ready(self) -> None:
        endpoint = self.endpoint
        answers = ["none"]

        def ready() -> bool | None:
            try:
                status, body = endpoint.get("/readyz", timeout_s=READY_ANSWER_TIMEOUT_S)
            except OSError as error:
                answers[:] = [str(error)]
                return None
            answers[:] = [body.decode(errors="replace")]
            return True if status == 200 else None

        wait_until(
            ready,
            what="the API server ready",
            timeout_s=READY_TIMEOUT_S,
            interval_s=READY_INTERVAL_S,
            describe=lambda: answers[0],
            remedy=f"read the components' logs in {self.logs}",
        )


def control_plane_logs(run_folder: Path) -> tuple[Path, ...]:
    """The log folder of a run's control plane, of any kind, whether it came up or not."""
    return tuple(run_folder.glob("cluster/kwokctl/clusters/*/logs")) + tuple(run_folder.glob("cluster/logs"))
