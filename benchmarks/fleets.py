"""Restoring against registering, adopted pods against native ones, and whether leases are kept alive."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.model import COMPONENTS, Bench, Benchmark, Figure, timed
from framework.cluster import MEASURING, EmbeddedCluster, LeaseBudget, lease_budget
from framework.fleet import (
    Fleet,
    RenewalReport,
    Snapshot,
    Snapshots,
    judge_renewals,
    register,
    restore,
    snapshot_key,
    watch_renewals,
)
from framework.realnode import evict
from framework.spec import EndpointMode, ServiceSpec
from framework.units import GIB, MIB
from framework.workload import DaemonSetService

SNAPSHOT_NODES = 20_000
POD_NODES = 5_000
GRACE_PERIODS_WATCHED = 1.5
IDLE_S = 20.0
QUIET_S = 60.0
SETTLE_S = 5.0


def snapshots(bench: Bench) -> Benchmark:
    """A fleet restored from its snapshot against the same fleet registered."""
    registered, restored = [], []
    for number in range(bench.rounds):
        with tempfile.TemporaryDirectory(prefix="kn-") as folder, bench.place() as cluster:
            store = Snapshots(Path(folder), 8 * GIB)
            bench.say(f"snapshots, round {number + 1}: {SNAPSHOT_NODES:,} nodes registered")
            registered.append(timed(lambda: register(cluster, SNAPSHOT_NODES, store)))  # noqa: B023
            snapshot = _saved(cluster, SNAPSHOT_NODES, store)
            bench.say(f"snapshots, round {number + 1}: and restored")
            restored.append(timed(lambda: restore(cluster, snapshot, store)))  # noqa: B023
    figures = (
        Figure(what=f"register {SNAPSHOT_NODES:,} nodes", unit="s", rounds=tuple(registered)),
        Figure(what=f"restore {SNAPSHOT_NODES:,} nodes", unit="s", rounds=tuple(restored)),
    )
    return Benchmark(
        name="snapshots",
        question="How much faster is a fleet restored than registered?",
        figures=figures,
        ratio=figures[0].median / figures[1].median,
        ratio_of="register / restore",
        aim="more than 1",
    )


def pods(bench: Bench) -> Benchmark:
    """A DaemonSet's pods Ready: created in bulk and adopted, against created by the controller."""
    times_s: dict[EndpointMode, list[float]] = {"adopted": [], "native": []}
    for number in range(bench.rounds):
        with tempfile.TemporaryDirectory(prefix="kn-") as folder, bench.place() as cluster:
            register(cluster, POD_NODES, Snapshots(Path(folder), GIB)).verify(held=False)
            cluster.control(lease_budget(POD_NODES, cluster.renewal_cost))
            for mode, times in times_s.items():
                bench.say(f"pods, round {number + 1}: {POD_NODES:,} pods, {mode}")
                times.append(_prepare_s(cluster, mode))
    figures = tuple(
        Figure(what=f"{POD_NODES:,} pods Ready, {mode}", unit="s", rounds=tuple(times))
        for mode, times in times_s.items()
    )
    return Benchmark(
        name="pods",
        question=f"How much faster are {POD_NODES:,} adopted pods Ready than native ones?",
        figures=figures,
        ratio=figures[1].median / figures[0].median,
        ratio_of="native / adopted",
        aim="more than 1",
    )


def renewals(bench: Bench, nodes: int) -> Benchmark:
    """Whether kwok keeps a fleet's leases alive over one and a half grace periods, and what that costs."""
    with tempfile.TemporaryDirectory(prefix="kn-") as folder, bench.place() as cluster:
        cluster.serve(MEASURING)
        cluster.control(lease_budget(1, cluster.renewal_cost))
        time.sleep(IDLE_S)
        idle_mib = _memory_mib(cluster)
        store = _store(bench, nodes, Path(folder))
        bench.say(f"renewals: {nodes:,} nodes")
        snapshot = _saved(cluster, nodes, store)
        bench.say("renewals: restored, with nothing of it in the page cache")
        restore_s, fleet = _restored_cold(cluster, snapshot, store)
        summary_s = timed(fleet.summary)
        budget = lease_budget(nodes, cluster.renewal_cost)
        bench.say(f"renewals: {nodes:,} nodes with {budget}")
        cluster.control(budget)
        fleet.wait_until_held()
        time.sleep(budget.interval_s)
        bench.say(f"renewals: watched for {GRACE_PERIODS_WATCHED * budget.grace_s:.0f} s")
        report, spent_s = _watched(cluster, budget)
        summary = fleet.summary()
        memory_mib = _memory_mib(cluster)
        bench.say("renewals: kwok paused, to see what the fleet costs without renewals")
        quiet_cores = _without_renewals(cluster, budget)
    database_bytes = snapshot.manifest.files["member/snap/db"].size_bytes
    figures = [
        Figure(what="fake nodes", unit="", rounds=(nodes,)),
        Figure(what="restored from a cold snapshot", unit="s", rounds=(restore_s,)),
        Figure(what="all nodes and leases read back", unit="s", rounds=(summary_s,)),
        *_kept_alive(report, budget),
        Figure(what="fake nodes NotReady", unit="", rounds=(summary.nodes - summary.ready,)),
        Figure(
            what="renewal cost as measured before", unit="ms", rounds=(1000 * cluster.renewal_cost.cpu_s,)
        ),
    ]
    for name in COMPONENTS:
        renewing_s = max(0.0, spent_s[name] - quiet_cores[name] * report.watched_s)
        per_renewal_ms = 1000 * renewing_s / max(1, report.renewals)
        figures += [
            Figure(what=f"{name}: CPU per renewal", unit="ms", rounds=(per_renewal_ms,)),
            Figure(
                what=f"{name}: CPU without renewals", unit="% of one core", rounds=(100 * quiet_cores[name],)
            ),
            Figure(what=f"{name}: memory", unit="MiB", rounds=(memory_mib[name],)),
            Figure(what=f"{name}: memory without fakes", unit="MiB", rounds=(idle_mib[name],)),
        ]
    figures.append(Figure(what="etcd: database as saved", unit="MiB", rounds=(database_bytes / MIB,)))
    return Benchmark(
        name="renewals",
        question=f"Does kwok keep the leases of {nodes:,} nodes alive over {report.watched_s:.0f} s?",
        figures=tuple(figures),
        ratio=report.late_s_p99 / budget.interval_s,
        ratio_of="p99 of lateness / interval",
        aim="below 0.50, with more renewals in the busiest minute than needed and no fake NotReady",
    )


def _watched(cluster: EmbeddedCluster, budget: LeaseBudget) -> tuple[RenewalReport, Mapping[str, float]]:
    """The renewals of one and a half grace periods, and the CPU time that each component used meanwhile."""
    before, begin_s = _cpu_s(cluster), time.time()
    seen = watch_renewals(cluster.endpoint, GRACE_PERIODS_WATCHED * budget.grace_s)
    spent_s, end_s = _cpu_s_since(before, cluster), time.time()
    return judge_renewals(seen, budget, begin_s=begin_s, end_s=end_s), spent_s


def _without_renewals(cluster: EmbeddedCluster, budget: LeaseBudget) -> Mapping[str, float]:
    """Cores that each component uses while kwok is paused, for a time that no grace period notices."""
    quiet_s = min(QUIET_S, budget.grace_s / 2)
    cluster.signal("kwok", signal.SIGSTOP)
    try:
        time.sleep(SETTLE_S)
        before, begin_s = _cpu_s(cluster), time.monotonic()
        time.sleep(quiet_s)
        elapsed_s, spent_s = time.monotonic() - begin_s, _cpu_s_since(before, cluster)
    finally:
        cluster.signal("kwok", signal.SIGCONT)
    return {name: spent_s[name] / elapsed_s for name in COMPONENTS}


def _kept_alive(report: RenewalReport, budget: LeaseBudget) -> Iterator[Figure]:
    yield Figure(what="interval", unit="s", rounds=(budget.interval_s,))
    yield Figure(what="renewals needed", unit="1/s", rounds=(report.per_s_needed,))
    yield Figure(what="renewals in the busiest minute", unit="1/s", rounds=(report.per_s_busiest,))
    yield Figure(what="renewals over the whole time", unit="1/s", rounds=(report.per_s,))
    if report.gap_s_mean is not None:
        yield Figure(what="mean time between renewals of a lease", unit="s", rounds=(report.gap_s_mean,))
    yield Figure(what="lateness p50", unit="s", rounds=(report.late_s_p50,))
    yield Figure(what="lateness p99", unit="s", rounds=(report.late_s_p99,))
    yield Figure(what="lateness max", unit="s", rounds=(report.late_s_max,))
    yield Figure(what="leases without a renewal", unit="", rounds=(report.unrenewed,))


def endpoints(bench: Bench, nodes: int) -> Benchmark:
    """A Service's endpoints in slices: of adopted pods, by the real controllers, against slices alone."""
    with tempfile.TemporaryDirectory(prefix="kn-") as folder, bench.place() as cluster:
        store = _store(bench, nodes, Path(folder))
        cluster.serve(MEASURING)
        budget = lease_budget(nodes, cluster.renewal_cost)
        bench.say(f"endpoints: {nodes:,} nodes")
        restore(cluster, _saved(cluster, nodes, store), store)
        cluster.plan(budget)
        adopted, direct = (_service(cluster, nodes, mode) for mode in ("adopted", "endpointslices"))
        try:
            bench.say(f"endpoints: {nodes:,} adopted pods")
            pods_s = timed(adopted.prepare)
            bench.say("endpoints: their slices")
            slices_s = timed(lambda: (adopted.apply(), adopted.wait_for_endpoints()))
            adopted.withdraw()
            bench.say(f"endpoints: {nodes:,} direct endpoints")
            direct_s = timed(direct.apply)
            direct.wait_for_endpoints()
        finally:
            for service in (adopted, direct):
                service.close()
    figures = (
        Figure(what="pods created, Ready, adopted and counted", unit="s", rounds=(pods_s,)),
        Figure(what="their slices written by the real controller", unit="s", rounds=(slices_s,)),
        Figure(what="adopted endpoints Ready and in slices", unit="s", rounds=(pods_s + slices_s,)),
        Figure(what="direct endpoints written", unit="s", rounds=(direct_s,)),
    )
    return Benchmark(
        name="endpoints",
        question=f"How long until {nodes:,} endpoints are Ready and in slices?",
        figures=figures,
        ratio=(pods_s + slices_s) / direct_s,
        ratio_of="adopted / direct",
        aim="at 100,000: adopted below 720 s, direct below 15 s",
    )


def _service(cluster: EmbeddedCluster, endpoints: int, mode: EndpointMode) -> DaemonSetService:
    return DaemonSetService(
        ServiceSpec(name=f"bench-{mode}", endpoints=endpoints, mode=mode),
        cluster.endpoint,
        loading_pods=cluster.loading_pods,
    )


def _prepare_s(cluster: EmbeddedCluster, mode: EndpointMode) -> float:
    service = _service(cluster, POD_NODES, mode)
    elapsed_s = timed(service.prepare)
    service.delete()
    service.close()
    return elapsed_s


def _store(bench: Bench, nodes: int, folder: Path) -> Snapshots:
    """Where snapshots of large fleets are kept anyway; small ones are gone with ``folder``."""
    return Snapshots.below(bench.binaries.root) if nodes > SNAPSHOT_NODES else Snapshots(folder, GIB)


def _saved(cluster: EmbeddedCluster, nodes: int, store: Snapshots) -> Snapshot:
    """The snapshot of a fleet, which is registered first where there is none."""
    key = snapshot_key(cluster, nodes)
    if store.find(key) is None:
        register(cluster, nodes, store)
    snapshot = store.find(key)
    assert snapshot is not None  # noqa: S101 - registering saves it
    return snapshot


def _memory_mib(cluster: EmbeddedCluster) -> Mapping[str, float]:
    return {name: cluster.memory_bytes(name) / MIB for name in COMPONENTS}


def _restored_cold(cluster: EmbeddedCluster, snapshot: Snapshot, store: Snapshots) -> tuple[float, Fleet]:
    cluster.stop()
    for path in (path for path in snapshot.folder.rglob("*") if path.is_file()):
        evict(path)
    begin_s = time.monotonic()
    fleet = restore(cluster, snapshot, store)
    assert fleet is not None  # noqa: S101 - nobody damaged it
    return time.monotonic() - begin_s, fleet


def _cpu_s(cluster: EmbeddedCluster) -> Mapping[str, float]:
    return {name: cluster.cpu_s(name) for name in COMPONENTS}


def _cpu_s_since(before: Mapping[str, float], cluster: EmbeddedCluster) -> Mapping[str, float]:
    return {name: now_s - before[name] for name, now_s in _cpu_s(cluster).items()}
