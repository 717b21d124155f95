"""Whether kwok keeps the fakes' leases alive: every renewal seen on a watch, judged against the budget.

A renewal is *late* by what the time since the one before it exceeds the interval. kwok adds up to 4% of the
interval by itself (``renewIntervalJitter`` in pkg/kwok/controllers/controller.go of 0.8.0), so a little
lateness is its way. A lease that was not renewed at all while it was watched is late by at least the watched
time less an interval.

Leases that were taken over together are renewed together: a fleet's renewals come in waves with pauses
between them. How many fall into the watched time depends on where it begins; what the machine carries shows
in the busiest minute, and whether it keeps up in the lateness.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import chain, pairwise
from typing import Final

import msgspec

from framework.cluster import ApiEndpoint, Bulk, LeaseBudget, run_bulk
from framework.fleet.nodes import FAKE_PREFIX
from framework.outcome import Record
from framework.run_objects import LEASES_PATH

BUSY_S: Final = 60.0


class Renewal(Record, frozen=True, kw_only=True):
    """One renewal of a fake's lease; ``at_s`` is the time written into it, in seconds since the epoch."""

    node: str
    at_s: float


class RenewalReport(Record, frozen=True, kw_only=True):
    """The renewals of a fleet over ``watched_s`` seconds. ``unrenewed`` are leases without any.

    ``per_s_busiest`` is the rate of the busiest minute, ``gap_s_mean`` the mean time between two renewals of
    a lease (None where none was renewed twice).
    """

    nodes: int
    watched_s: float
    renewals: int
    unrenewed: int
    per_s: float
    per_s_busiest: float
    per_s_needed: float
    gap_s_mean: float | None
    late_s_p50: float
    late_s_p99: float
    late_s_max: float


class _Name(msgspec.Struct):
    name: str


class _Spec(msgspec.Struct, rename="camel"):
    renew_time: datetime | None = None


class _Lease(msgspec.Struct):
    metadata: _Name
    spec: _Spec


class _Event(msgspec.Struct):
    type: str
    object: _Lease


def watch_renewals(endpoint: ApiEndpoint, watch_s: float) -> tuple[Renewal, ...]:
    """Every renewal of a fake's lease in the next ``watch_s`` seconds."""

    async def watch(bulk: Bulk) -> tuple[Renewal, ...]:
        renewals: list[Renewal] = []

        async def follow() -> None:
            async for event in bulk.watch(LEASES_PATH, _Event):
                renewed = event.object.spec.renew_time
                name = event.object.metadata.name
                if event.type == "MODIFIED" and renewed is not None and name.startswith(FAKE_PREFIX):
                    renewals.append(Renewal(node=name, at_s=renewed.astimezone(UTC).timestamp()))

        try:
            await asyncio.wait_for(follow(), watch_s)
        except TimeoutError:
            return tuple(renewals)
        raise AssertionError("a watch without an end ended")

    found: tuple[Renewal, ...] = run_bulk(watch, endpoint)
    return found


def judge_renewals(
    renewals: Iterable[Renewal], budget: LeaseBudget, *, begin_s: float, end_s: float
) -> RenewalReport:
    """What renewals between ``begin_s`` and ``end_s`` (seconds since the epoch) say about ``budget``."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for renewal in renewals:
        times[renewal.node].append(renewal.at_s)
    late_s: list[float] = []
    gaps_s: list[float] = []
    for renewed in times.values():
        renewed.sort()
        gaps_s += [later - earlier for earlier, later in pairwise(renewed)]
        late_s += [
            max(0.0, later - earlier - budget.interval_s) for earlier, later in pairwise([begin_s, *renewed])
        ]
    unrenewed = max(0, budget.nodes - len(times))
    late_s += [max(0.0, end_s - begin_s - budget.interval_s)] * unrenewed
    late_s.sort()
    count = sum(map(len, times.values()))
    return RenewalReport(
        nodes=budget.nodes,
        watched_s=end_s - begin_s,
        renewals=count,
        unrenewed=unrenewed,
        per_s=count / (end_s - begin_s),
        per_s_busiest=_busiest(sorted(chain.from_iterable(times.values()))) / min(BUSY_S, end_s - begin_s),
        per_s_needed=budget.renewals_per_s,
        gap_s_mean=statistics.fmean(gaps_s) if gaps_s else None,
        late_s_p50=_percentile(late_s, 0.5),
        late_s_p99=_percentile(late_s, 0.99),
        late_s_max=_percentile(late_s, 1.0),
    )


def _busiest(ordered_s: list[float]) -> int:
    """The most renewals in any ``BUSY_S`` seconds."""
    first, most = 0, 0
    for last, at_s in enumerate(ordered_s):
        while at_s - ordered_s[first] >= BUSY_S:
            first += 1
        most = max(most, last - first + 1)
    return most


def _percentile(ordered: list[float], share: float) -> float:
    """The smallest value that at least ``share`` of all don't exceed; 0 of none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
