"""The default control plane: kwokctl's binary runtime in a network namespace of its own.

kwokctl makes the PKI and starts etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok. The
framework gives it exact binaries and a place, and ends everything by that place, also where kwokctl is gone:

* a *cluster namespace* with a bridge, so that everything listens on its loopback and kube-apiserver alone on
  the bridge as well; ports are always the same and clusters never collide;
* a memory cgroup without limit, which tells what the control plane costs, and from which every process of it
  can be ended, whoever its parent was;
* a state folder for etcd's data, logs and keys.

It runs in two steps. ``serve`` starts etcd and kube-apiserver alone: objects are loaded without controllers
in the way, and the cost of a lease renewal is measured. ``control`` adds kube-controller-manager,
kube-scheduler and kwok, with the lease budget that follows from it. Both say what shall run and leave the
rest to ``kwokctl create cluster``, which starts what is missing of a cluster that exists; so a phase of
loading and one of measuring may tune the API server differently, and etcd's data may be replaced in between.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from framework import network, process
from framework.binaries import Binaries, Binary
from framework.cgroup import MemoryCgroup, memory_cgroup
from framework.cluster.api import ApiEndpoint, run_bulk
from framework.cluster.kwokctl import component_name, configuration
from framework.cluster.lease_budget import (
    BULK_PARALLELISM,
    LOAD_PARALLELISM,
    LeaseBudget,
    RenewalCost,
    lease_budget,
)
from framework.cluster.renewals import measure_renewal_cpu_s
from framework.errors import KilonodeError, TimeLimitError
from framework.ledger import Cgroup, Folder, Ledger, Link, Netns, machine_lock
from framework.wait import wait_until

KWOKCTL_TIMEOUT_S: Final = 180.0
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
"""Last octet of the bridge's address, which is kube-apiserver's for real nodes and for the host."""
FRAMEWORK_HOST: Final = 2
FIRST_NODE_HOST: Final = 10
STORAGE: Final = ("etcd", "kube-apiserver")
CONTROLLERS: Final = ("kube-controller-manager", "kube-scheduler", "kwok")
TOOLS: Final = ("kwokctl", "kubectl")
METRICS_PORTS: Final = {"kube-controller-manager": 10257}
NO_FAKES: Final = 1
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


class EmbeddedCluster:
    """A running control plane. Made by ``start``; what it created is in the ledger."""

    kind: Final = "embedded"

    def __init__(
        self,
        ledger: Ledger,
        binaries: dict[str, Binary],
        subnet: IPv4Network,
    ) -> None:
        self.run_id = ledger.run_id
        self.name = f"kilonode-{ledger.run_id}"
        self.binaries = binaries
        self.subnet = subnet
        self.netns = self.name
        self.address = str(subnet[BRIDGE_HOST])
        self.folder = ledger.folder / "cluster"
        self.cgroup: MemoryCgroup = memory_cgroup(f"{self.name}/control-plane")
        self._next_node_host = FIRST_NODE_HOST
        self._running: tuple[str, ...] = ()
        self._tuning = MEASURING
        self._budget: LeaseBudget | None = None
        self._renewal_cost: RenewalCost | None = None

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
        link = f"kn{ledger.run_id}"
        with machine_lock("network"):
            cluster = cls(ledger, found, network.free_subnet())
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

    @property
    def etcd_data(self) -> Path:
        """etcd's data folder; to be replaced only while nothing runs."""
        return self._workdir / "etcd"

    def forget_everything(self) -> None:
        """Remove etcd's data. Nothing may run."""
        if self.etcd_data.is_symlink():
            self.etcd_data.unlink()
        shutil.rmtree(self.etcd_data, ignore_errors=True)

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
        """A controller's own metrics, read inside the cluster namespace, on whose loopback it listens.

        Raises OSError when it doesn't answer.
        """
        inside = replace(self.endpoint, url=f"https://127.0.0.1:{METRICS_PORTS[component]}", netns=self.netns)
        status, body = inside.get("/metrics", timeout_s=METRICS_TIMEOUT_S)
        if status != 200:
            raise OSError(f"{component} answered {status}: {body[:200].decode(errors='replace')}")
        return body.decode()

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
        for pid in self._pids(component):
            os.kill(pid, signum)

    def _pids(self, component: str) -> tuple[int, ...]:
        """kwokctl runs a link to the executable, so the kernel names the executable itself."""
        executable = self.binaries[component].path.resolve()
        return tuple(pid for pid in self.cgroup.pids() if _executable(pid) == executable)

    def _stop(self, component: str) -> None:
        """kwokctl takes what its pid file names for running, even where the pid is a stranger's by now."""
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
        name = component_name(component)
        (self._workdir / "pids" / f"{name}.pid").unlink(missing_ok=True)
        self._put_log_aside(name)
        self._running = tuple(running for running in self._running if running != component)

    def _put_log_aside(self, name: str) -> None:
        """Started again, a component would write over it."""
        log = self.logs / f"{name}.log"
        if log.exists():
            number = len(list(self.logs.glob(f"{name}.*.log"))) + 1
            log.rename(self.logs / f"{name}.{number}.log")

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


def _executable(pid: int) -> Path | None:
    """The file that a process runs; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/exe").readlink()
    except OSError:
        return None
