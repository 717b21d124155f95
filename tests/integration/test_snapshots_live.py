"""Fleets on a real etcd's disk: restored as they were, refused when damaged, resumed when interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from framework import ledger as ledgers
from framework.binaries import Binaries
from framework.cluster import EmbeddedCluster, lease_budget
from framework.fleet import FleetSummary, Snapshots, register, restore, snapshot_key
from framework.ledger import STATE_ENV, Ledger
from framework.units import GIB
from framework.wait import wait_until

NODES = 400
REGISTERS = """
import sys
from pathlib import Path
from framework.binaries import Binaries
from framework.cluster import EmbeddedCluster
from framework.fleet import Snapshots, register
from framework.ledger import Ledger

nodes, root = int(sys.argv[1]), Path(sys.argv[2])
cluster = EmbeddedCluster.place(Ledger.begin(), Binaries())
register(cluster, nodes, Snapshots(root, 1 << 30), lambda done: print(done, flush=True))
"""
KILL_TIMEOUT_S = 60.0


class InterruptedHereError(Exception):
    """What a test raises in the middle of a registration."""


def registered(nodes: int, held: int = 0) -> FleetSummary:
    return FleetSummary(nodes=nodes, ready=nodes, distinct_addresses=nodes, leases=nodes, leases_held=held)


@pytest.fixture
def store(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "snapshots", GIB)


@pytest.fixture
def apart(live_state: Path, binaries: Binaries) -> Iterator[EmbeddedCluster]:
    """A control plane of its own, of which nothing runs yet."""
    ledger = Ledger.begin(live_state)
    yield EmbeddedCluster.place(ledger, binaries)
    assert ledger.finish() == ()


def test_a_fleet_comes_back_as_it_was_registered_and_lives(apart: EmbeddedCluster, store: Snapshots) -> None:
    fleet = register(apart, NODES, store)
    assert fleet.summary() == registered(NODES)
    budget = lease_budget(NODES, apart.renewal_cost)
    apart.control(budget)
    fleet.verify()

    snapshot = store.find(snapshot_key(apart, NODES))
    assert snapshot is not None
    again = restore(apart, snapshot, store)
    assert again is not None
    assert (again.size, again.summary()) == (NODES, registered(NODES))
    apart.control(budget)
    again.verify()
    assert again.summary() == registered(NODES, held=NODES)
    again.grow_to(NODES + 20, during_load=apart.controllers_paused)
    assert again.summary().leases_held == NODES + 20


def test_a_damaged_snapshot_is_refused_and_made_again(
    apart: EmbeddedCluster, store: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    register(apart, NODES, store)
    key = snapshot_key(apart, NODES)
    snapshot = store.find(key)
    assert snapshot is not None
    with (snapshot.folder / "etcd/member/snap/db").open("r+b") as db:
        db.seek(100_000)
        db.write(b"damage")
    assert restore(apart, snapshot, store) is None
    assert "its file member/snap/db is damaged; it is made again" in caplog.text
    assert store.find(key) is None
    assert register(apart, NODES, store).summary() == registered(NODES)
    assert store.find(key) is not None


def test_an_interrupted_registration_is_gone_on_with(apart: EmbeddedCluster, store: Snapshots) -> None:
    def interrupt(done: int) -> None:
        if done >= 3 * NODES // 4:
            raise InterruptedHereError

    with pytest.raises(InterruptedHereError):
        register(apart, NODES, store, interrupt)
    assert apart.cgroup.pids() == ()
    heard: list[int] = []
    assert register(apart, NODES, store, heard.append).summary() == registered(NODES)
    assert heard[0] >= 3 * NODES // 4
    assert heard[-1] == NODES


def test_a_killed_registration_is_gone_on_with_by_the_next_run(
    apart: EmbeddedCluster, store: Snapshots, live_state: Path
) -> None:
    killed = subprocess.Popen(
        [sys.executable, "-c", REGISTERS, str(NODES), str(store.root)],
        env={**os.environ, STATE_ENV: str(live_state)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout is not None
    with killed.stdout as said:
        for line in said:
            if int(line) >= 3 * NODES // 4:
                break
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(KILL_TIMEOUT_S) == -signal.SIGKILL
    removed, failures = ledgers.clean(live_state, include_kept=False)
    assert (len(removed), failures) == (1, ())
    heard: list[int] = []
    assert register(apart, NODES, store, heard.append).summary() == registered(NODES)
    assert heard[0] >= NODES // 2
    wait_until(lambda: store.find(snapshot_key(apart, NODES)), what="the snapshot", timeout_s=1)
