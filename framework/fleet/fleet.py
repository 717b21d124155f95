"""Fake nodes and their leases, registered through the API.

The fleet only grows at its end and shrinks at its end, so that the nodes of a fleet of N are always the
indexes 0 to N-1: creating what exists and deleting what is gone count as done, and an interrupted call is
resumed by repeating it. After each change the fleet is read back in pages and compared.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from itertools import chain
from typing import Final

import msgspec

from framework.cluster import ApiEndpoint, Bulk, Call, LeaseBudget, run_bulk
from framework.fleet.nodes import (
    FAKE_PREFIX,
    FAKE_SELECTOR,
    LEASE_NAMESPACE,
    lease_body,
    node_body,
    node_name,
)
from framework.outcome import Record
from framework.spec import require_count
from framework.wait import wait_until

NODES_PATH: Final = "/api/v1/nodes"
LEASES_SEEN_AFTER_S: Final = 0.5
"""kwok that sees a node before its lease tries to create one, fails, and looks again only after an interval;
so leases come first, with a little time for kwok's watch."""
NODES_GONE_SEEN_AFTER_S: Final = 0.5
RELEASE_AFTER_S: Final = 5.0
VERIFY_TIMEOUT_S: Final = 120.0
VERIFY_INTERVAL_S: Final = 0.5
LEASES_PATH: Final = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases"


class FleetSummary(Record, frozen=True, kw_only=True):
    """The fake nodes that the API server holds. ``leases_held`` are those that kwok renews by now."""

    nodes: int
    ready: int
    distinct_addresses: int
    leases: int
    leases_held: int


class FleetChange(Record, frozen=True, kw_only=True):
    """What one change cost: API requests sent, and seconds (verification excluded)."""

    requests: int
    elapsed_s: float


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Address(msgspec.Struct):
    type: str
    address: str


class _Status(msgspec.Struct):
    conditions: list[_Condition] = []
    addresses: list[_Address] = []


class _Node(msgspec.Struct):
    status: _Status


class _Name(msgspec.Struct):
    name: str


class _Holder(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None


class _Lease(msgspec.Struct):
    metadata: _Name
    spec: _Holder


class Fleet:
    """The fake nodes of one cluster. ``size`` is how many there are."""

    def __init__(self, endpoint: ApiEndpoint, budget: LeaseBudget, *, kubelet_version: str) -> None:
        self._endpoint = endpoint
        self._budget = budget
        self._kubelet_version = kubelet_version
        self.size = 0

    def grow_to(
        self,
        nodes: int,
        on_done: Callable[[int], object] = int,
        *,
        during_load: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> FleetChange:
        """Register nodes and leases until there are ``nodes``; nothing to do when there are as many.

        ``on_done`` hears how many nodes there are so far; ``during_load`` surrounds the creation, such as
        to pause controllers. Raises TimeLimitError when the API server does
        not hold what was asked in the end, or kwok does not renew all leases.
        """
        require_count(nodes, where="nodes")
        if nodes <= self.size:
            return FleetChange(requests=0, elapsed_s=0.0)
        first = self.size
        half = (nodes - first) // 2
        with during_load():
            leases = self._send(self._leases(first, nodes), lambda done: on_done(first + done // 2))
            time.sleep(LEASES_SEEN_AFTER_S)
            created = self._send(
                self._nodes(first, nodes), lambda done: on_done(first + half + (done + 1) // 2)
            )
        self.size = nodes
        self._verify()
        return FleetChange(
            requests=leases.requests + created.requests, elapsed_s=leases.elapsed_s + created.elapsed_s
        )

    def shrink_to(self, nodes: int) -> FleetChange:
        """Delete the last nodes and their leases until there are ``nodes``, which may be 0.

        Raises TimeLimitError when the API server holds more in the end.
        """
        if nodes >= self.size:
            return FleetChange(requests=0, elapsed_s=0.0)
        change = self._delete(range(nodes, self.size))
        self.size = nodes
        self._verify()
        return change

    def summary(self) -> FleetSummary:
        """Read all fake nodes and their leases back, in pages."""
        summary: FleetSummary = run_bulk(_summarise, self._endpoint)
        return summary

    def _send(self, calls: Iterator[Call], on_done: Callable[[int], object]) -> FleetChange:
        start_s = time.monotonic()
        requests: int = run_bulk(lambda bulk: bulk.each(calls, on_done), self._endpoint)
        return FleetChange(requests=requests, elapsed_s=time.monotonic() - start_s)

    def _leases(self, first: int, end: int) -> Iterator[Call]:
        for index in range(first, end):
            body = lease_body(index, lease_s=self._budget.lease_s, now=datetime.now(UTC))
            yield Call("POST", LEASES_PATH, body)

    def _nodes(self, first: int, end: int) -> Iterator[Call]:
        for index in range(first, end):
            body = node_body(index, version=self._kubelet_version, now=datetime.now(UTC))
            yield Call("POST", NODES_PATH, body)

    def _delete(self, indexes: Sequence[int]) -> FleetChange:
        """Nodes first: kwok writes the lease of a node that it has again."""
        nodes = self._send((Call("DELETE", f"{NODES_PATH}/{node_name(index)}") for index in indexes), int)
        time.sleep(NODES_GONE_SEEN_AFTER_S)
        leases = self._send((Call("DELETE", f"{LEASES_PATH}/{node_name(index)}") for index in indexes), int)
        return FleetChange(
            requests=nodes.requests + leases.requests, elapsed_s=nodes.elapsed_s + leases.elapsed_s
        )

    def _release_leases(self) -> None:
        """Make kwok let go of nodes that are gone.

        One that was deleted while kwok was still taking it over may stay in kwok's books, and its lease is
        renewed for ever (kwok 0.8.0). Such a node is shown to kwok once more, and deleted again.
        """
        names: list[str] = run_bulk(_lease_names, self._endpoint)
        indexes = [index for name in names if (index := int(name.removeprefix(FAKE_PREFIX))) >= self.size]
        self._send(chain.from_iterable(self._nodes(index, index + 1) for index in indexes), int)
        time.sleep(NODES_GONE_SEEN_AFTER_S)
        self._delete(indexes)

    def _verify(self) -> None:
        size = self.size
        wanted = FleetSummary(nodes=size, ready=size, distinct_addresses=size, leases=size, leases_held=size)
        found: list[FleetSummary] = []
        released_s = time.monotonic()

        def complete() -> bool | None:
            nonlocal released_s
            found[:] = [self.summary()]
            if found[0].leases > size and time.monotonic() - released_s > RELEASE_AFTER_S:
                self._release_leases()
                released_s = time.monotonic()
            return True if found[0] == wanted else None

        wait_until(
            complete,
            what=f"a fleet of {size:,} Ready nodes with leases that kwok renews",
            timeout_s=VERIFY_TIMEOUT_S,
            interval_s=VERIFY_INTERVAL_S,
            describe=lambda: str(found),
            remedy="look for NotReady fake nodes and at kwok-controller.log",
        )


async def _summarise(bulk: Bulk) -> FleetSummary:
    nodes = ready = 0
    addresses: set[str] = set()
    async for page in bulk.pages(NODES_PATH, _Node, selector=FAKE_SELECTOR):
        nodes += len(page)
        ready += sum(_is_ready(node) for node in page)
        addresses.update(
            address.address
            for node in page
            for address in node.status.addresses
            if address.type == "InternalIP"
        )
    leases = held = 0
    async for fakes in _fake_leases(bulk):
        leases += len(fakes)
        held += sum(lease.spec.holder_identity is not None for lease in fakes)
    return FleetSummary(
        nodes=nodes,
        ready=ready,
        distinct_addresses=len(addresses),
        leases=leases,
        leases_held=held,
    )


async def _fake_leases(bulk: Bulk) -> AsyncIterator[list[_Lease]]:
    async for page in bulk.pages(LEASES_PATH, _Lease):
        yield [lease for lease in page if lease.metadata.name.startswith(FAKE_PREFIX)]


async def _lease_names(bulk: Bulk) -> list[str]:
    return [lease.metadata.name async for page in _fake_leases(bulk) for lease in page]


def _is_ready(node: _Node) -> bool:
    return any(
        condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions
    )
