"""What a large cluster needs, computed from unit costs that the benchmark ``renewals`` measured.

    python -m benchmarks.scaling runs/benchmarks.json

prints what production's leases need for 100,000 and a million nodes, with the arithmetic.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import msgspec

from benchmarks.model import COMPONENTS, Benchmark, Results
from framework.cluster.lease_budget import (
    PRODUCTION_LEASE_S,
    RENEWAL_SHARE,
    RENEWALS_PER_LEASE,
    RenewalCost,
    lease_budget,
)
from framework.outcome import Record
from framework.units import GIB, MIB

FLEETS = (100_000, 1_000_000)
INTERVAL_S = PRODUCTION_LEASE_S / RENEWALS_PER_LEASE


class UnitCosts(Record, frozen=True, kw_only=True):
    """What one fake node costs, by component: CPU time for one renewal of its lease, cores beside that.

    ``kwok_per_s_seen`` is the most renewals that one kwok was seen to carry over a minute.
    """

    nodes: int
    cpu_s: dict[str, float]
    cores: dict[str, float]
    memory_bytes: dict[str, float]
    idle_bytes: dict[str, float]
    database_bytes: float
    kwok_per_s_seen: float
    cpus: int

    @property
    def renewal_cost(self) -> RenewalCost:
        return RenewalCost(cpu_s=self.cpu_s["kube-apiserver"] + self.cpu_s["etcd"], cpus=self.cpus)


def unit_costs(results: Results) -> UnitCosts:
    """The unit costs in a run's results. Raises LookupError where they lack the benchmark."""
    (renewals,) = [found for found in results.benchmarks if found.name == "renewals"]
    nodes = int(_median(renewals, "fake nodes"))
    memory = {name: _median(renewals, f"{name}: memory") * MIB for name in COMPONENTS}
    idle = {name: _median(renewals, f"{name}: memory without fakes") * MIB for name in COMPONENTS}
    return UnitCosts(
        nodes=nodes,
        cpu_s={name: _median(renewals, f"{name}: CPU per renewal") / 1000 for name in COMPONENTS},
        cores={name: _median(renewals, f"{name}: CPU without renewals") / 100 / nodes for name in COMPONENTS},
        memory_bytes={name: (memory[name] - idle[name]) / nodes for name in COMPONENTS},
        idle_bytes=idle,
        database_bytes=_median(renewals, "etcd: database as saved") * MIB / nodes,
        kwok_per_s_seen=_median(renewals, "renewals in the busiest minute"),
        cpus=results.cpus,
    )


def tables(costs: UnitCosts) -> str:
    """Markdown: the unit costs, what production's leases need, and what this machine does instead."""
    return "\n\n".join((_unit_table(costs), *(_needs(costs, nodes) for nodes in FLEETS), _budgets(costs)))


def _unit_table(costs: UnitCosts) -> str:
    rows = [
        f"| {name} | {_ms(costs.cpu_s[name])} | {_us(costs.cores[name])} | "
        f"{costs.memory_bytes[name] / 1000:.1f} kB | "
        f"{costs.idle_bytes[name] / MIB:.0f} MiB |"
        for name in COMPONENTS
    ]
    head = [
        "| component | CPU for one renewal | CPU for one node beside that | "
        "memory for one node with its lease | memory without fakes |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def _needs(costs: UnitCosts, nodes: int) -> str:
    writes_per_s = nodes / INTERVAL_S
    lines = [
        f"**{nodes:,} nodes, leases of {PRODUCTION_LEASE_S} s renewed each {INTERVAL_S:g} s:** "
        f"{nodes:,} / {INTERVAL_S:g} s = **{writes_per_s:,.0f} writes/s**",
        "",
        "| component | CPU | memory |",
        "|---|---|---|",
    ]
    for name in COMPONENTS:
        terms = []
        if costs.cpu_s[name]:
            terms.append(f"{writes_per_s:,.0f}/s x {_ms(costs.cpu_s[name])}")
        if costs.cores[name]:
            terms.append(f"{nodes:,} x {_us(costs.cores[name])}")
        total = writes_per_s * costs.cpu_s[name] + nodes * costs.cores[name]
        cores = f"{' + '.join(terms)} = {total:,.1f} cores"
        memory_bytes = costs.idle_bytes[name] + nodes * costs.memory_bytes[name]
        lines.append(
            f"| {name} | {cores} | {costs.idle_bytes[name] / MIB:.0f} MiB + {nodes:,} x "
            f"{costs.memory_bytes[name] / 1000:.1f} kB = {memory_bytes / GIB:,.1f} GiB |"
        )
    database = nodes * costs.database_bytes
    lines += [
        "",
        f"etcd's database, before any history: {nodes:,} x {costs.database_bytes / 1000:.1f} kB = "
        f"{database / GIB:.2f} GiB; its history grows by {writes_per_s:,.0f} revisions/s until compacted.",
        "",
        f"kwok instances: {writes_per_s:,.0f}/s / {costs.kwok_per_s_seen:,.0f}/s = "
        f"{math.ceil(writes_per_s / costs.kwok_per_s_seen)}, if none carries more than one did here beside "
        "everything else.",
    ]
    return "\n".join(lines)


def _budgets(costs: UnitCosts) -> str:
    cost = costs.renewal_cost
    most = int(RENEWAL_SHARE * cost.per_s_max * INTERVAL_S)
    lines = [
        f"On {costs.cpus} CPUs that carry {cost.per_s_max:,.0f} renewals/s at most, production's times fit "
        f"up to **{most:,} nodes**:",
        "",
        "| nodes | lease | renewed each | grace period | renewals/s | share of the CPUs |",
        "|---|---|---|---|---|---|",
    ]
    for nodes in (1_000, most, 10_000, 30_000, *FLEETS):
        budget = lease_budget(nodes, cost)
        lines.append(
            f"| {nodes:,} | {budget.lease_s:,} s | {budget.interval_s:g} s | {budget.grace_s:,} s | "
            f"{budget.renewals_per_s:,.0f} | {budget.cpu_share:.0%} |"
        )
    return "\n".join(lines)


def _median(benchmark: Benchmark, what: str) -> float:
    (figure,) = [found for found in benchmark.figures if found.what == what]
    return figure.median


def _ms(cpu_s: float) -> str:
    """``not seen`` where the component used no more than without renewals."""
    return "not seen" if cpu_s == 0 else f"{1000 * cpu_s:.2f} ms"


def _us(cores: float) -> str:
    """Cores as CPU time for each second."""
    return f"{1e6 * cores:.2f} us/s" if cores else "not seen"


if __name__ == "__main__":
    print(tables(unit_costs(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Results))))
