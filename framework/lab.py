"""Everything that one session sets up, shared between its measurements, and removed at its end.

The control plane and the fleet come up with the first measurement that needs them and serve all others; a
real node and its cgroup are fresh for each measurement, because kernel memory of the last one would stay
charged. What broke the shared part is remembered: later measurements are skipped with that reason instead of
failing one by one for the same cause.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from framework import guard, ledger
from framework.binaries import Binaries, check_skew
from framework.cgroup import detect_mode
from framework.cluster import (
    Cluster,
    ControlPlane,
    EmbeddedCluster,
    ExistingCluster,
    ExistingSettings,
    KindCluster,
    KindSettings,
    control_plane_logs,
)
from framework.errors import BadInputError, KilonodeError, LeftOutError, MissingRequirementError
from framework.fleet import Fleet, Snapshots
from framework.ground import ExistingGround, Ground
from framework.ledger import Ledger
from framework.log import get_logger
from framework.outcome import Environment
from framework.preflight import require_iptables
from framework.realnode import NODE_LABELS, CopyPool, ExistingNode, HostNode, KindWorker, Node, obstacle
from framework.report import PhaseName, Reporter, RunFolder
from framework.spec import (
    NODES_MAX,
    AskedMode,
    ManyServicesSpec,
    RealNodeSpec,
    ServiceSpec,
    Spec,
    endpoint_mode,
)
from framework.traffic import Backends, Client
from framework.workload import DaemonSetService, ManyServices, Workload

log = get_logger(__name__)

T = TypeVar("T")
S = TypeVar("S", bound=Spec)

ClusterKind = Literal["embedded", "kind", "existing"]
SERVICE_NAME: Final = "everywhere"
MANY_SERVICES_NAME: Final = "small"


class LabSettings(Spec, frozen=True, kw_only=True):
    """What the session was asked for. ``max_nodes`` bounds the fleet; ``existing`` says which cluster."""

    max_nodes: int
    cluster: ClusterKind
    kind: KindSettings = KindSettings()
    existing: ExistingSettings | None = None
    mode: AskedMode
    keep: bool


class Lab:
    """One session's control plane, fleet, Services and real nodes; ``close`` removes them."""

    def __init__(
        self, settings: LabSettings, *, binaries: Binaries, run_folder: RunFolder, reporter: Reporter
    ) -> None:
        self.settings = settings
        self.binaries = binaries
        self.run_folder = run_folder
        self.reporter = reporter
        self._ledger: Ledger | None = None
        self._ground: Ground | ExistingGround | None = None
        self._services: dict[str, Workload] = {}
        self._used: list[Workload] = []
        self._nodes: list[Node] = []
        self._node_count = 0
        self._backends: Backends | None = None
        self._copies: CopyPool
        self._broken: KilonodeError | None = None

    @property
    def ledger(self) -> Ledger:
        """This session's ledger; what runs left behind whose process is gone is removed first."""
        if self._ledger is None:
            removed, failures = ledger.clean(include_kept=False)
            if removed:
                log.warning("removed what %s left behind", ", ".join(removed))
            if failures:
                log.warning("still left behind: %s", "; ".join(failures))
            self._ledger = Ledger.begin()
            self._copies = CopyPool(self._ledger.folder / "copies")
        return self._ledger

    @property
    def ground(self) -> Ground | ExistingGround:
        """The control plane with its fleet; nothing of it runs before it is asked for."""
        if self._ground is None:
            self._ground = self._make_ground()
        return self._ground

    def _make_ground(self) -> Ground | ExistingGround:
        existing = self.settings.existing
        if existing is not None:
            kwok_version = self.binaries.request("kwok").version
            return ExistingGround(
                lambda: ExistingCluster.join(self.ledger, existing, kwok_version=kwok_version),
                step=self._shared,
                advance=self._advance,
            )
        return Ground(
            self.settings.cluster,
            self._start_cluster,
            Snapshots.below(self.binaries.root),
            step=self._shared,
            advance=self._advance,
            on_new=self._forget_services,
        )

    def _start_cluster(self) -> ControlPlane:
        if self.settings.cluster == "kind":
            return KindCluster.start(self.ledger, self.binaries, self.settings.kind, labels=NODE_LABELS)
        return EmbeddedCluster.start(self.ledger, self.binaries)

    @property
    def cluster(self) -> Cluster:
        """The control plane, started at first use."""
        return self.ground.cluster

    @property
    def control_plane(self) -> ControlPlane | None:
        """The same where it is the run's own."""
        return self.cluster if isinstance(self.cluster, ControlPlane) else None

    @property
    def fleet(self) -> Fleet:
        """The fake nodes; none at first."""
        return self.ground.fleet

    def lost_cluster(self) -> KilonodeError | None:
        """What to say where the control plane went under this session; later measurements are skipped so."""
        cluster = self._ground.started if self._ground is not None else None
        if cluster is None or not cluster.is_gone:
            return None
        self._broken = KilonodeError(
            f"the {cluster.kind} cluster was lost under the run: its {' and '.join(cluster.lost)} ended",
            where=cluster.name,
            remedy="leave it alone while a run lasts, or read its logs in the run folder; then run again",
        )
        return self._broken

    def require_cluster(self) -> None:
        """Raises KilonodeError where the control plane went."""
        lost = self.lost_cluster()
        if lost is not None:
            raise lost

    def grow_fleet(self, nodes: int) -> None:
        """Have at least ``nodes`` fake nodes. Raises LeftOutError beyond ``max_nodes``."""
        self.require_allowed(nodes)
        self.ground.grow_to(nodes, in_use=self._in_use)

    def set_fleet(self, nodes: int) -> None:
        """Have exactly ``nodes`` fake nodes, which may be 0.

        Raises LeftOutError beyond ``max_nodes``, BadInputError for less than a real node or a
        Service stands on.
        """
        self.require_allowed(nodes)
        self.ground.set_to(nodes, in_use=self._in_use)

    def require_allowed(self, nodes: int) -> None:
        """Raises LeftOutError for more fake nodes than ``max_nodes``, BadInputError for no number of them."""
        if not isinstance(nodes, int) or not 0 <= nodes <= NODES_MAX:
            raise BadInputError(
                f"{nodes!r} is outside 0 to {NODES_MAX:,}",
                where="fleet",
                remedy="give a count inside these bounds",
            )
        if nodes > self.settings.max_nodes:
            raise LeftOutError(
                f"{nodes:,} fake nodes are needed and --max-nodes is {self.settings.max_nodes:,}",
                remedy=f"give --max-nodes {nodes}",
            )

    @property
    def _in_use(self) -> bool:
        return bool(self._nodes or self._used)

    def service(
        self, *, endpoints: int, mode: AskedMode | None = None, dual_stack: bool = False, **shape: Any
    ) -> DaemonSetService:
        """A DaemonSet Service, not applied yet, whose pods are Ready; measurements share the pods.

        ``shape`` is further fields of ``ServiceSpec``. The fleet stays under it until ``release``.
        """
        asked = mode or self.settings.mode
        chosen = endpoint_mode(
            asked, endpoints, dual_stack=dual_stack, can_adopt=self.settings.existing is None
        )
        spec = _shaped(
            ServiceSpec,
            shape,
            name=SERVICE_NAME,
            endpoints=endpoints,
            mode=chosen,
            dual_stack=dual_stack,
        )
        service = DaemonSetService(
            spec,
            self.cluster.endpoint,
            loading_pods=self.control_plane.loading_pods if self.control_plane else None,
            home=self.cluster.home,
        )
        self._use(service)
        if chosen != "adopted":
            self.ground.settle()
        self._shared(
            "workload",
            f"{endpoints:,} endpoints, {chosen}{' (auto)' if asked == 'auto' else ''}",
            lambda: service.prepare(lambda done: self.reporter.phase_advanced("workload", done)),
            total=None if chosen == "endpointslices" else endpoints,
        )
        self.ground.settle()
        return service

    def many_services(self, *, count: int, endpoints_each: int, **shape: Any) -> ManyServices:
        """Many small Services, not applied yet; ``shape`` is further fields of ``ManyServicesSpec``."""
        spec = _shaped(
            ManyServicesSpec, shape, name=MANY_SERVICES_NAME, count=count, endpoints_each=endpoints_each
        )
        services = ManyServices(spec, self.cluster.endpoint, home=self.cluster.home)
        self._use(services)
        self.ground.settle()
        return services

    def _use(self, workload: Workload) -> None:
        """Take ``workload`` into use instead of one of the same name."""
        self._require_unbroken()
        previous = self._services.get(workload.spec.name)
        if previous is not None:
            previous.withdraw()
            previous.close()
        self._services[workload.spec.name] = workload
        self._used.append(workload)

    def release(self, service: Workload) -> None:
        """Withdraw a Service whose test is over; its pods stay for the next one."""
        if service in self._used:
            self._used.remove(service)
        if self.lost_cluster() is None and self._services.get(service.spec.name) is service:
            service.withdraw()

    def boot(self, spec: RealNodeSpec, before_start: Callable[[Node], None]) -> Node:
        """A fresh real node, Ready, kube-proxy not started.

        ``before_start`` is called with it before its first process starts, so that nothing escapes the
        observers.
        """
        self._require_unbroken()
        if spec.proxy_mode == "iptables":
            require_iptables()
        if self.settings.existing is not None:
            return self._borrow(spec, before_start)
        guard.require(spec.memory_bytes // 4, what="a real node")
        if self.settings.cluster == "embedded":
            self.binaries.check_skew(spec.kube_proxy)
        cluster = self.control_plane
        assert cluster is not None  # noqa: S101 - no existing cluster
        check_skew(kube_apiserver=cluster.version, kube_proxy=spec.kube_proxy)
        self.ground.settle()
        node = self._prepare(spec, cluster)
        self._nodes.append(node)
        before_start(node)
        with self.phase("node", f"{node.name}, kube-proxy {spec.kube_proxy}"):
            node.boot()
        return node

    def _borrow(self, spec: RealNodeSpec, before_start: Callable[[Node], None]) -> Node:
        """One of the nodes that may be looked at, the first that is free and what ``spec`` asks for."""
        cluster = self.cluster
        assert isinstance(cluster, ExistingCluster)  # noqa: S101 - by the settings
        if not cluster.settings.real_nodes:
            raise MissingRequirementError(
                "no real node of the existing cluster may be looked at", remedy="give --real-node NAME"
            )
        taken = {node.name for node in self._nodes}
        refusals = [f"{name} is looked at already" for name in cluster.settings.real_nodes if name in taken]
        for name in (name for name in cluster.settings.real_nodes if name not in taken):
            try:
                node = ExistingNode.prepare(spec, name, cluster=cluster, ledger=self.ledger)
            except MissingRequirementError as refusal:
                refusals.append(refusal.what)
                continue
            self._nodes.append(node)
            before_start(node)
            with self.phase("node", f"{node.name}, as it is"):
                node.boot()
            return node
        raise MissingRequirementError(
            "; ".join(refusals), remedy="name nodes that are so with --real-node, or use --cluster kind"
        )

    def _prepare(self, spec: RealNodeSpec, cluster: ControlPlane) -> Node:
        if isinstance(cluster, KindCluster):
            return KindWorker.prepare(spec, cluster=cluster, binaries=self.binaries, ledger=self.ledger)
        self._node_count += 1
        return HostNode.prepare(
            spec,
            f"real-{self._node_count}",
            cluster=cluster,
            binaries=self.binaries,
            ledger=self.ledger,
            pool=self._copies,
        )

    def client(self, node: Node) -> Client:
        """A client behind ``node``, which asks nobody yet."""
        assert node.netns is not None  # noqa: S101 - a node of the run's own
        return Client(self.backends, self.ledger, node_netns=node.netns, node_address=node.address)

    @property
    def backends(self) -> Backends:
        """The endpoints of all fake nodes, made at first use."""
        if self._backends is None:
            assert self.control_plane is not None  # noqa: S101 - nodes of other clusters have no clients
            self._backends = Backends(self.control_plane, self.ledger)
        return self._backends

    def settled(self, spec: RealNodeSpec) -> RealNodeSpec:
        """``spec`` with its ballast as pods or processes, by what this machine can run.

        Raises MissingRequirementError for ballast that is asked for as pods where none can run.
        """
        if self.settings.existing is not None:
            # Nothing of the run's is behind such a node, and its own manager starts its daemons again.
            return msgspec.structs.replace(spec.settled(pods_run=False), client=False, restart="production")
        if not spec.may_have_pods:
            return spec.settled(pods_run=False)
        if self._pods_obstacle is not None and spec.pods:
            raise MissingRequirementError(
                f"real pods can't run on this machine: {self._pods_obstacle}",
                remedy='use a machine where runc can start containers, or give the ballast form="process"',
            )
        return spec.settled(pods_run=self._pods_obstacle is None)

    @cached_property
    def _pods_obstacle(self) -> str | None:
        if self.settings.cluster == "kind":
            return None
        return obstacle(self.binaries, self.ledger)

    def retire(self, node: Node) -> None:
        """Remove a real node."""
        if node in self._nodes:
            self._nodes.remove(node)
            node.stop()

    def other_runs(self) -> int:
        """How many other runs live on this machine now, beside clusters and engines that were kept."""
        return sum(run.state == "alive" for run in ledger.other_runs(self.ledger.folder))

    def unready_fakes(self) -> int | None:
        """Fake nodes that the node controller calls NotReady; None when it doesn't say.

        It goes on counting a real node for some seconds after that is gone.
        """
        if not self.fleet.size:
            return 0
        if self.settings.existing is not None:
            found = self.fleet.summary()
            return found.nodes - found.ready
        unready = self.cluster.unready_nodes()
        if not unready:
            return unready
        mine = sum(node.node_condition() != "True" for node in self._nodes)
        return max(0, unready - mine)

    def environment(self) -> Environment:
        """The machine, and every executable that takes part."""
        found = [
            *self.cluster.components(),
            *(component for node in self._nodes for component in node.components()),
        ]
        components = {(each.name, each.version): each for each in found}
        return Environment(
            kernel=platform.release(),
            cgroup_mode=detect_mode(),
            cpus=os.cpu_count() or 0,
            memory_bytes=guard.memory_total_bytes(),
            python=platform.python_version(),
            distribution=_distribution(),
            components=tuple(components[key] for key in sorted(components)),
            cpu_model=_cpu_model(),
        )

    def close(self) -> tuple[str, ...]:
        """Remove everything (unless told to keep it); gives what could not be removed."""
        if self._ledger is None:
            return ()
        if self.settings.keep:
            self._ledger.keep()
            cluster = self._ground.started if self._ground is not None else None
            kept = f"KUBECONFIG={cluster.kubeconfig}" if cluster is not None else str(self._ledger.folder)
            log.warning("kept: %s; remove it with `kilonode clean`", kept)
            return ()
        with self.phase("teardown", ""), ExitStack() as removed:
            left: list[str] = []
            removed.callback(lambda: left.extend(self._ledger.finish() if self._ledger else ()))
            for service in self._services.values():
                removed.callback(service.close)
            if self._backends is not None:
                removed.callback(self._backends.stop)
            self._keep_control_plane_logs()
        return tuple(left)

    @contextmanager
    def phase(self, name: PhaseName, detail: str, total: int | None = None) -> Iterator[None]:
        """Report a phase around what happens inside, and in one line what it failed of."""
        self.reporter.phase_started(name, detail, total)
        try:
            yield
        except BaseException as error:
            why = error.what.splitlines()[0] if isinstance(error, KilonodeError) else ""
            self.reporter.phase_ended(name, False, f"{detail}: {why}" if why else detail)
            raise
        self.reporter.phase_ended(name, True, detail)

    def _shared(self, name: PhaseName, detail: str, work: Callable[[], T], *, total: int | None = None) -> T:
        """``work`` on what all measurements share; its failure is remembered and ends them all."""
        self._require_unbroken()
        try:
            guard.check()
            with self.phase(name, detail, total):
                return work()
        except KilonodeError as error:
            if not isinstance(error, MissingRequirementError):
                self._broken = error
            raise

    def _require_unbroken(self) -> None:
        """Raises MissingRequirementError once something failed that all measurements share."""
        if self._broken is not None:
            raise MissingRequirementError(
                f"the shared environment is broken: {self._broken.what}", remedy=self._broken.remedy
            ) from self._broken

    def _advance(self, phase: PhaseName, done: int) -> None:
        self.reporter.phase_advanced(phase, done)

    def _forget_services(self) -> None:
        """What the cluster held is thrown away with its data."""
        for service in self._services.values():
            service.close()
        self._services.clear()

    def _keep_control_plane_logs(self) -> None:
        """Also those of a control plane that never came up; a full disk is no reason to remove less."""
        try:
            if self._ground is not None and self._ground.started is not None:
                self._ground.started.save_logs()
            for logs in control_plane_logs(self.ledger.folder):
                self.run_folder.keep_logs(logs)
        except (OSError, KilonodeError) as error:
            log.warning("the control plane's logs were not kept: %s", error)


def _shaped(kind: type[S], shape: dict[str, Any], **given: Any) -> S:
    """A spec of what is ``given`` and of ``shape``. Raises BadInputError for a field that it hasn't."""
    known = [name for name in kind.__struct_fields__ if name not in given]
    unknown = [name for name in shape if name not in known]
    if unknown:
        raise BadInputError(
            f"a Service has no {', '.join(unknown)} to be given",
            where=kind.__name__,
            remedy=f"it has {', '.join(known)}",
        )
    return kind(**given, **shape)


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        return "unknown"


def _cpu_model() -> str:
    """As the kernel names it; empty where it does not, as on arm64."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "")
