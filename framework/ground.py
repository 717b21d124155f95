"""The ground that measurements stand on: a control plane and its fleet, at the size that a test asks for.

It comes up at first use and grows with the tests of a session. A small fleet, and one that has to grow under
a real node or a Service, is registered in the running cluster. A large one comes from its snapshot, in a
control plane that starts anew on it; everything that earlier tests left in the cluster is gone then. Either
way the lease budget follows the fleet's size, and is said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from framework import guard
from framework.cluster import MEASURING, ControlPlane, ExistingCluster, lease_budget
from framework.errors import BadInputError
from framework.fleet import Belonging, Fleet, Snapshots, register, restore, snapshot_key
from framework.report import PhaseName
from framework.units import MIB

CONTROL_PLANE_BYTES: Final = 1200 * MIB
"""Resident memory of an idle control plane with its page cache."""
BYTES_PER_FAKE: Final = 120_000
"""Memory of all control-plane processes for each fake node with its lease and one pod."""
NODES_RESTORED_MIN: Final = 2_000
"""Smaller fleets are registered in the running cluster, which takes less time than to start another one."""


class Step(Protocol):
    """Does ``work`` as a phase with a name that everybody sees; a failure ends all later measurements."""

    def __call__(
        self, name: PhaseName, detail: str, work: Callable[[], Any], *, total: int | None = None
    ) -> Any: ...


class Ground:
    """One control plane of a ``kind``, which ``start`` gives, with its fleet.

    ``on_new`` is called before a cluster's objects are thrown away.
    """

    def __init__(
        self,
        kind: str,
        start: Callable[[], ControlPlane],
        snapshots: Snapshots,
        *,
        step: Step,
        advance: Callable[[PhaseName, int], object],
        on_new: Callable[[], object],
    ) -> None:
        self._name = f"{kind} control plane"
        self._start = start
        self._step = step
        self._advance = advance
        self._on_new = on_new
        self._snapshots = snapshots
        self._cluster: ControlPlane | None = None
        self._settled = True
        self._fleet: Fleet | None = None

    @property
    def started(self) -> ControlPlane | None:
        """The control plane if there is one yet."""
        return self._cluster

    @property
    def cluster(self) -> ControlPlane:
        """The control plane, started at first use."""
        if self._cluster is None:
            guard.require(CONTROL_PLANE_BYTES, what="the control plane")
            self._cluster = self._step("cluster", self._name, self._start)
        return self._cluster

    @property
    def fleet(self) -> Fleet:
        """The fake nodes; none at first."""
        if self._fleet is None:
            self._fleet = Fleet(self.cluster.endpoint, kubelet_version=self.cluster.version)
        return self._fleet

    def grow_to(self, nodes: int, *, in_use: bool) -> None:
        """Have at least ``nodes`` fake nodes, those there are under whatever uses them where ``in_use``."""
        if nodes <= self.fleet.size:
            return
        guard.require((nodes - self.fleet.size) * BYTES_PER_FAKE, what=f"a fleet of {nodes:,}")
        if nodes < NODES_RESTORED_MIN or in_use or self.cluster.etcd_data is None:
            self._register_more(nodes, in_use=in_use)
        else:
            self._establish(nodes)

    def set_to(self, nodes: int, *, in_use: bool) -> None:
        """Have exactly ``nodes`` fake nodes. Raises BadInputError where fewer would take some from a user."""
        if nodes < self.fleet.size:
            refuse_fewer(self.fleet.size, nodes, in_use=in_use)
            self._shrink_to(nodes)
        self.grow_to(nodes, in_use=in_use)

    def settle(self) -> None:
        """Wait until kwok has taken the fleet over, and start the controllers after that.

        Until then it ignores the pods of nodes that aren't its own yet, and takes most of the CPUs.
        """
        if self._settled:
            return
        cluster, fleet = self.cluster, self.fleet

        def take_over() -> None:
            cluster.start_kwok()
            fleet.wait_until_held(lambda done: self._advance("leases", done))
            cluster.control(cluster.budget)

        self._step("leases", f"{fleet.size:,} leases taken over by kwok", take_over, total=fleet.size)
        self._settled = True

    def _shrink_to(self, nodes: int) -> None:
        cluster, fleet = self.cluster, self.fleet
        if cluster.etcd_data is None:
            detail = f"{fleet.size - nodes:,} fake nodes of {fleet.size:,} deleted"
            self._step("fleet", detail, lambda: fleet.shrink_to(nodes))
            return
        self._on_new()

        def begin() -> None:
            cluster.stop()
            cluster.forget_everything()
            cluster.serve(MEASURING)
            cluster.control(lease_budget(1, cluster.renewal_cost))

        self._step("cluster", f"{self._name}, empty again", begin)
        self._fleet, self._settled = None, True

    def _establish(self, nodes: int) -> None:
        self._on_new()
        fleet = self._restored(nodes)
        if fleet is None:
            fleet = self._step(
                "fleet",
                f"{nodes:,} fake nodes and leases, registered and saved",
                lambda: register(self.cluster, nodes, self._snapshots, self._registered),
                total=nodes,
            )
        self._fleet = fleet
        budget = lease_budget(nodes, self.cluster.renewal_cost)
        self._step("leases", str(budget), lambda: self.cluster.plan(budget))
        self._settled = False

    def _restored(self, nodes: int) -> Fleet | None:
        snapshot = self._snapshots.find(snapshot_key(self.cluster, nodes))
        if snapshot is None:
            return None
        fleet: Fleet | None = self._step(
            "fleet",
            f"{nodes:,} fake nodes and leases, as saved on {snapshot.manifest.made_utc[:10]}",
            lambda: restore(self.cluster, snapshot, self._snapshots),
        )
        return fleet

    def _registered(self, nodes: int) -> None:
        self._advance("fleet", nodes)

    def _register_more(self, nodes: int, *, in_use: bool) -> None:
        self.settle()
        cluster, fleet = self.cluster, self.fleet
        budget = lease_budget(nodes, cluster.renewal_cost)

        def register_more() -> None:
            if budget.same_times(cluster.budget):
                fleet.grow_to(nodes, self._registered, during_load=cluster.controllers_paused)
                cluster.control(budget)
                return
            cluster.stop_controllers()
            held = fleet.size
            fleet.load(nodes, self._registered)
            fleet.free_leases(held)
            if nodes < NODES_RESTORED_MIN or in_use:
                cluster.control(budget)
                fleet.verify()
                return
            fleet.verify(held=False)
            cluster.plan(budget)
            self._settled = False

        self._step("fleet", f"{nodes:,} fake nodes; {budget}", register_more, total=nodes)


class ExistingGround:
    """A cluster that was there before, which ``start`` joins, with the fleet that was added to it.

    Its face is ``Ground``'s. Nothing of the cluster is paused or started anew: fakes are registered while it
    runs, each shard after its kwok.
    """

    def __init__(
        self, start: Callable[[], ExistingCluster], *, step: Step, advance: Callable[[PhaseName, int], object]
    ) -> None:
        self._start = start
        self._step = step
        self._advance = advance
        self._cluster: ExistingCluster | None = None
        self._fleet: Fleet | None = None

    @property
    def started(self) -> ExistingCluster | None:
        """The cluster if it was joined yet."""
        return self._cluster

    @property
    def cluster(self) -> ExistingCluster:
        """The cluster, joined at first use."""
        if self._cluster is None:
            self._cluster = self._step("cluster", "existing cluster", self._start)
        return self._cluster

    @property
    def fleet(self) -> Fleet:
        """The fake nodes; none at first."""
        if self._fleet is None:
            cluster = self.cluster
            self._fleet = Fleet(
                cluster.endpoint,
                kubelet_version=cluster.version,
                belonging=Belonging(
                    node_labels=cluster.labels_of, lease_labels=cluster.home.labels, is_guest=True
                ),
            )
        return self._fleet

    def grow_to(self, nodes: int, *, in_use: bool) -> None:
        """Have at least ``nodes`` fake nodes, Ready, and their leases renewed."""
        del in_use
        cluster, fleet = self.cluster, self.fleet
        if nodes <= fleet.size:
            return

        def register_more() -> None:
            cluster.serve_fleet(nodes)
            fleet.grow_to(nodes, lambda done: self._advance("fleet", done))

        shards = cluster.sharding.shards(nodes)
        detail = f"{nodes:,} fake nodes in {shards} shard{'s' if shards > 1 else ''}"
        self._step("fleet", detail, register_more, total=nodes)

    def set_to(self, nodes: int, *, in_use: bool) -> None:
        """Have exactly ``nodes`` fake nodes. Raises BadInputError where fewer would take some from a user."""
        fleet = self.fleet
        if nodes < fleet.size:
            refuse_fewer(fleet.size, nodes, in_use=in_use)
            detail = f"{fleet.size - nodes:,} fake nodes of {fleet.size:,} deleted"
            self._step("fleet", detail, lambda: fleet.shrink_to(nodes))
        self.grow_to(nodes, in_use=in_use)

    def settle(self) -> None:
        """Nothing is left to wait for: a fleet that has grown was read back."""


def refuse_fewer(size: int, nodes: int, *, in_use: bool) -> None:
    """Raises BadInputError where a fleet of ``size`` is in use and may not become one of ``nodes``."""
    if in_use:
        raise BadInputError(
            f"{size:,} fakes can't become {nodes:,} under a real node or a Service",
            where="fleet",
            remedy="set its size before real nodes and Services are made",
        )
