"""The arithmetic of what a large cluster needs, and the table of a run's ratios."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from benchmarks.model import COMPONENTS, Benchmark, Figure, Results
from benchmarks.pages import figures, ratios, recorded
from benchmarks.scaling import tables, unit_costs

DOCS = Path(__file__).parents[2] / "docs"


def figure(what: str, *rounds: float, unit: str = "") -> Figure:
    return Figure(what=what, unit=unit, rounds=rounds)


def some_results() -> Results:
    found = [figure("fake nodes", 1000), figure("etcd: database as saved", 2)]
    found += [figure("renewals in the busiest minute", 300, unit="1/s")]
    found += [figure(f"{name}: CPU per renewal", 1.0) for name in COMPONENTS]
    found += [figure(f"{name}: CPU without renewals", 5.0) for name in COMPONENTS]
    found += [figure(f"{name}: memory", 150) for name in COMPONENTS]
    found += [figure(f"{name}: memory without fakes", 50) for name in COMPONENTS]
    renewals = Benchmark(
        name="renewals", question="?", figures=tuple(found), ratio=0.1, ratio_of="x / y", aim="less"
    )
    return Results(
        format=1,
        made_utc="2026-01-01",
        kernel="6.18",
        cpus=2,
        memory_bytes=1,
        versions={},
        benchmarks=(renewals,),
    )


def test_unit_costs_are_what_one_node_adds() -> None:
    costs = unit_costs(some_results())
    assert costs.cpu_s == dict.fromkeys(COMPONENTS, 0.001)
    assert costs.cores["etcd"] == pytest.approx(0.05 / 1000)
    assert costs.memory_bytes["etcd"] == pytest.approx(100 * 1024**2 / 1000)
    assert costs.database_bytes == pytest.approx(2 * 1024**2 / 1000)
    assert costs.renewal_cost.cpu_s == pytest.approx(0.002)


def test_what_production_needs_is_multiplied_out() -> None:
    text = tables(unit_costs(some_results()))
    assert "100,000 / 10 s = **10,000 writes/s**" in text
    assert "10,000/s x 1.00 ms + 100,000 x 50.00 us/s = 15.0 cores" in text
    assert "kwok instances: 10,000/s / 300/s = 34" in text
    assert "1,000,000 / 10 s = **100,000 writes/s**" in text
    assert "50 MiB + 100,000 x 104.9 kB = 9.8 GiB" in text
    assert "| 1,000 | 40 s | 10 s | 50 s | 100 | 15% |" in text


def test_results_without_the_benchmark_are_refused() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        unit_costs(msgspec.structs.replace(some_results(), benchmarks=()))


def test_ratios_stand_beside_their_aims() -> None:
    assert "| `renewals` | 0.100 | x / y | less |" in ratios(some_results())


def test_figures_are_medians_beside_their_rounds() -> None:
    some = Benchmark(
        name="pods",
        question="Fast?",
        figures=(figure("native", 3, 1.5, 2, unit="s"), figure("once", 1234)),
        ratio=1,
        ratio_of="x / y",
        aim="more",
    )
    assert figures(some).splitlines()[4:] == ["| native | 2 | s | 3 1.5 2 |", "| once | 1,234 |  |  |"]


class TestPages:
    """The pages show what was recorded, and nothing else."""

    recorded = msgspec.json.decode((DOCS / "benchmarks.json").read_bytes(), type=Results)

    def test_the_ratios(self) -> None:
        page = (DOCS / "benchmarks.md").read_text()
        for found in self.recorded.benchmarks:
            assert figures(found) in page
        assert ratios(self.recorded) in page
        assert recorded(self.recorded) in page
        described = set(re.findall(r"^\| `(\w+)` \| [^|]+ \|$", page, re.M))
        assert {found.name for found in self.recorded.benchmarks} == described

    def test_what_production_needs(self) -> None:
        page = (DOCS / "scaling.md").read_text()
        assert tables(unit_costs(self.recorded)) in page
        assert recorded(self.recorded) in page
