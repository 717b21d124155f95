"""The ground of a session: which way a fleet comes to its size, with a strict fake of the control plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from framework import guard
from framework.cluster import LeaseBudget, RenewalCost, Tuning, lease_budget
from framework.errors import BadInputError, MissingRequirementError
from framework.ground import Ground
from framework.report import PhaseName


class FakeCluster:
    """Remembers what was asked of it."""

    version = "1.37.2"
    endpoint = None
    etcd_data: Path | None = Path("etcd")
    renewal_cost = RenewalCost(cpu_s=0.002, cpus=2)

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.budget: LeaseBudget

    def control(self, budget: LeaseBudget) -> None:
        self.budget = budget
        self.asked.append(f"control {budget.nodes}")

    def start_kwok(self) -> None:
        self.asked.append("kwok")

    def plan(self, budget: LeaseBudget) -> None:
        self.budget = budget
        self.asked.append(f"plan {budget.nodes}")

    def stop(self) -> None:
        self.asked.append("stop")

    def stop_controllers(self) -> None:
        self.asked.append("stop controllers")

    def forget_everything(self) -> None:
        self.asked.append("forget")

    def serve(self, tuning: Tuning) -> None:
        self.asked.append("serve")

    @contextmanager
    def controllers_paused(self) -> Iterator[None]:
        yield


class FakeFleet:
    def __init__(self, cluster: FakeCluster, size: int = 0) -> None:
        self.cluster = cluster
        self.size = size

    def grow_to(self, nodes: int, on_done: Callable[[int], object], *, during_load: Any) -> None:
        with during_load():
            self.cluster.asked.append(f"grow to {nodes}")
        self.size = nodes

    def load(self, nodes: int, on_done: Callable[[int], object]) -> None:
        self.cluster.asked.append(f"load {nodes}")
        self.size = nodes

    def free_leases(self, nodes: int) -> None:
        self.cluster.asked.append(f"free {nodes} leases")

    def verify(self, *, held: bool = True) -> None:
        self.cluster.asked.append("verify")

    def shrink_to(self, nodes: int) -> None:
        self.cluster.asked.append(f"shrink to {nodes}")
        self.size = nodes

    def wait_until_held(self, on_done: Callable[[int], object]) -> None:
        self.cluster.asked.append("held")


class World:
    """A ground on fakes; ``snapshot`` is what the store finds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster = FakeCluster()
        self.snapshot: Any = None
        self.refused = False
        self.phases: list[tuple[str, str]] = []
        self.forgotten = 0
        names = {
            "Fleet": lambda endpoint, *, kubelet_version: FakeFleet(self.cluster),
            "snapshot_key": lambda cluster, nodes: nodes,
            "register": self._register,
            "restore": self._restore,
        }
        for name, fake in names.items():
            monkeypatch.setattr(f"framework.ground.{name}", fake)
        monkeypatch.setattr(guard, "memory_available_bytes", lambda *_: 20 << 30)
        self.ground = Ground(
            "embedded",
            self._start,  # type: ignore[arg-type]
            SimpleNamespace(find=lambda key: self.snapshot),  # type: ignore[arg-type]
            step=self._step,
            advance=lambda phase, done: None,
            on_new=self._on_new,
        )

    def _start(self) -> FakeCluster:
        self.cluster.control(lease_budget(1, self.cluster.renewal_cost))
        return self.cluster

    def _step(
        self, name: PhaseName, detail: str, work: Callable[[], Any], *, total: int | None = None
    ) -> Any:
        self.phases.append((name, detail))
        return work()

    def _on_new(self) -> None:
        self.forgotten += 1

    def _register(self, cluster: FakeCluster, nodes: int, store: object, on_done: object) -> FakeFleet:
        cluster.asked.append(f"register {nodes}")
        return FakeFleet(cluster, nodes)

    def _restore(self, cluster: FakeCluster, snapshot: Any, store: object) -> FakeFleet | None:
        cluster.asked.append(f"restore {snapshot.manifest.key}")
        return None if self.refused else FakeFleet(cluster, snapshot.manifest.key)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def a_snapshot(nodes: int) -> Any:
    return SimpleNamespace(manifest=SimpleNamespace(key=nodes, made_utc="2026-11-25T18:00:00+00:00"))


def test_a_small_fleet_is_registered_in_the_running_cluster(world: World) -> None:
    world.ground.grow_to(100, in_use=False)
    world.ground.grow_to(50, in_use=False)
    assert world.cluster.asked == ["control 1", "grow to 100", "control 100"]
    assert world.ground.fleet.size == 100
    assert world.forgotten == 0
    assert "as production" in world.phases[-1][1]


def test_a_large_one_is_registered_and_saved_where_there_is_no_snapshot(world: World) -> None:
    world.ground.grow_to(10_000, in_use=False)
    assert world.cluster.asked == ["control 1", "register 10000", "plan 10000"]
    assert world.forgotten == 1
    name, detail = world.phases[-1]
    assert (name, "leases of 150 s" in detail) == ("leases", True)


def test_and_restored_where_there_is_one(world: World) -> None:
    world.snapshot = a_snapshot(10_000)
    world.ground.grow_to(10_000, in_use=False)
    assert world.cluster.asked == ["control 1", "restore 10000", "plan 10000"]
    assert ("fleet", "10,000 fake nodes and leases, as saved on 2026-11-25") in world.phases


def test_a_refused_snapshot_is_made_again(world: World) -> None:
    world.snapshot, world.refused = a_snapshot(10_000), True
    world.ground.grow_to(10_000, in_use=False)
    assert world.cluster.asked[1:] == ["restore 10000", "register 10000", "plan 10000"]


def test_nothing_is_thrown_away_under_a_real_node(world: World) -> None:
    world.ground.grow_to(100, in_use=False)
    world.ground.grow_to(10_000, in_use=True)
    assert world.forgotten == 0
    assert world.cluster.asked[-5:] == [
        "stop controllers",
        "load 10000",
        "free 100 leases",
        "control 10000",
        "verify",
    ]


def test_without_snapshots_a_large_one_is_registered_without_controllers_and_settles_later(
    world: World,
) -> None:
    world.cluster.etcd_data = None
    world.ground.grow_to(100, in_use=False)
    world.ground.grow_to(10_000, in_use=False)
    world.ground.settle()
    assert world.cluster.asked[-8:] == [
        "stop controllers",
        "load 10000",
        "free 100 leases",
        "verify",
        "plan 10000",
        "kwok",
        "held",
        "control 10000",
    ]
    assert world.forgotten == 0


def test_and_shrinks_by_deletion(world: World) -> None:
    world.cluster.etcd_data = None
    world.ground.set_to(100, in_use=False)
    world.ground.set_to(10, in_use=False)
    assert world.cluster.asked[-1] == "shrink to 10"
    assert world.ground.fleet.size == 10
    assert world.forgotten == 0


def test_a_fleet_settles_once_after_it_came_as_a_whole(world: World) -> None:
    world.ground.grow_to(100, in_use=False)
    world.ground.settle()
    assert "held" not in world.cluster.asked
    world.ground.grow_to(5_000, in_use=False)
    world.ground.settle()
    world.ground.settle()
    assert world.cluster.asked[-4:] == ["plan 5000", "kwok", "held", "control 5000"]


def test_a_fleet_can_be_set_to_nothing_and_back(world: World) -> None:
    world.ground.set_to(5_000, in_use=False)
    world.ground.set_to(0, in_use=False)
    assert world.ground.fleet.size == 0
    assert world.cluster.asked[-4:] == ["stop", "forget", "serve", "control 1"]
    world.ground.set_to(10, in_use=False)
    world.ground.settle()
    assert world.ground.fleet.size == 10
    assert "held" not in world.cluster.asked


def test_but_not_under_a_real_node(world: World) -> None:
    world.ground.set_to(5_000, in_use=False)
    with pytest.raises(BadInputError, match="5,000 fakes can't become 10 under a real node or a Service"):
        world.ground.set_to(10, in_use=True)
    assert world.ground.fleet.size == 5_000


def test_a_fleet_that_memory_does_not_hold_is_refused_before_anything_is_thrown_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ground.grow_to(100, in_use=False)
    monkeypatch.setattr(guard, "memory_available_bytes", lambda *_: 4 << 30)
    with pytest.raises(MissingRequirementError, match="a fleet of 100,000 needs about"):
        world.ground.grow_to(100_000, in_use=False)
    assert world.forgotten == 0
