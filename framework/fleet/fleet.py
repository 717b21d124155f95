"""Fake nodes and their leases, registered through the API.

The fleet only grows at its end and shrinks at its end, so that the nodes of a fleet of N are always the
indexes 0 to N-1: creating what exists and deleting what is gone count as done. An interrupted registration is
resumed: what is there already is looked up by name first and not sent again. After each change the fleet is
read back, as printed rows in pages, and compared.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Final

from framework.cluster import BULK_PARALLELISM, LOAD_PARALLELISM, ApiEndpoint, Bulk, Call, run_bulk
from framework.fleet.nodes import (
    FAKE_PREFIX,
    FAKE_SELECTOR,
    OWN,
    Belonging,
    lease_body,
    node_body,
    node_name,
)
from framework.outcome import Record
from framework.run_objects import LEASES_PATH
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
HELD_TIMEOUT_S: Final = 900.0
HELD_SHARE: Final = 0.9
"""kwok that starts sees some nodes before their leases, fails to create those, and tries again an interval
later (kwok 0.8.0): up to 4% of 100,000. They are renewed in time, and nobody need wait for them."""
HELD_LEASES_COUNTED_PER_S: Final = 5_000
"""Counting 100,000 leases takes the API server some seconds of CPU that kwok needs: each 20 s is enough."""
_NO_HOLDER: Final = b'{"spec":{"holderIdentity":null}}'


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


class Fleet:
    """The fake nodes of one cluster. ``size`` is how many there are."""

    def __init__(
        self, endpoint: ApiEndpoint, *, kubelet_version: str, size: int = 0, belonging: Belonging = OWN
    ) -> None:
        self._endpoint = endpoint
        self._belonging = belonging
        self._kubelet_version = kubelet_version
        self.size = size

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
        with during_load():
            change = self.load(nodes, on_done)
        self.verify()
        return change

    def load(self, nodes: int, on_done: Callable[[int], object] = int) -> FleetChange:
        """Register what is missing of ``nodes`` nodes and leases, without reading them back."""
        wanted = range(self.size, nodes)
        missing_leases, missing_nodes = (self._missing(path, wanted) for path in (LEASES_PATH, NODES_PATH))
        missing = len(missing_leases) + len(missing_nodes)
        sent = 0

        def advanced(done: int) -> None:
            on_done(nodes - (missing - sent - done + 1) // 2)

        leases = self._send(self._leases(missing_leases), advanced, parallelism=LOAD_PARALLELISM)
        sent = leases.requests
        time.sleep(LEASES_SEEN_AFTER_S)
        created = self._send(self._nodes(missing_nodes, fleet=nodes), advanced, parallelism=LOAD_PARALLELISM)
        self.size = nodes
        return FleetChange(
            requests=leases.requests + created.requests, elapsed_s=leases.elapsed_s + created.elapsed_s
        )

    def free_leases(self, nodes: int) -> None:
        """Take the holder off the first leases, so that a kwok that starts again renews them at once."""
        names = (node_name(index) for index in range(nodes))
        self._send((Call("PATCH", f"{LEASES_PATH}/{name}", _NO_HOLDER) for name in names), int)

    def shrink_to(self, nodes: int) -> FleetChange:
        """Delete the last nodes and their leases until there are ``nodes``, which may be 0.

        Raises TimeLimitError when the API server holds more in the end.
        """
        if nodes >= self.size:
            return FleetChange(requests=0, elapsed_s=0.0)
        change = self._delete(range(nodes, self.size))
        self.size = nodes
        self.verify()
        return change

    def summary(self) -> FleetSummary:
        """Read all fake nodes and their leases back, as printed rows in pages."""
        summary: FleetSummary = run_bulk(_summarise, self._endpoint)
        return summary

    def _send(
        self,
        calls: Iterator[Call],
        on_done: Callable[[int], object],
        *,
        parallelism: int = BULK_PARALLELISM,
    ) -> FleetChange:
        start_s = time.monotonic()
        requests: int = run_bulk(
            lambda bulk: bulk.each(calls, on_done), self._endpoint, parallelism=parallelism
        )
        return FleetChange(requests=requests, elapsed_s=time.monotonic() - start_s)

    def _missing(self, path: str, wanted: range) -> list[int]:
        there: set[str] = run_bulk(lambda bulk: _names(bulk, path), self._endpoint)
        return [index for index in wanted if node_name(index) not in there]

    def _leases(self, indexes: Iterable[int]) -> Iterator[Call]:
        for index in indexes:
            yield Call(
                "POST", LEASES_PATH, lease_body(index, now=datetime.now(UTC), belonging=self._belonging)
            )

    def _nodes(self, indexes: Iterable[int], *, fleet: int) -> Iterator[Call]:
        for index in indexes:
            body = node_body(
                index,
                fleet=fleet,
                version=self._kubelet_version,
                now=datetime.now(UTC),
                belonging=self._belonging,
            )
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
        names: set[str] = run_bulk(lambda bulk: _names(bulk, LEASES_PATH), self._endpoint)
        indexes = [index for name in names if (index := int(name.removeprefix(FAKE_PREFIX))) >= self.size]
        self._send(self._nodes(indexes, fleet=self.size), int)
        time.sleep(NODES_GONE_SEEN_AFTER_S)
        self._delete(indexes)

    def leases_held(self) -> int:
        """How many leases kwok renews by now."""

        async def count(bulk: Bulk) -> int:
            return sum([sum(holder != "" for holder in page) async for page in _fake_holders(bulk)])

        return int(run_bulk(count, self._endpoint))

    def wait_until_held(self, on_done: Callable[[int], object] = int) -> None:
        """Wait until kwok renews nearly every lease; ``on_done`` hears how many it does.

        Raises TimeLimitError after a quarter of an hour.
        """

        def held() -> bool | None:
            count = self.leases_held()
            on_done(count)
            return count >= HELD_SHARE * self.size or None

        wait_until(
            held,
            what=f"{self.size:,} leases renewed by kwok",
            timeout_s=HELD_TIMEOUT_S,
            interval_s=max(VERIFY_INTERVAL_S, self.size / HELD_LEASES_COUNTED_PER_S),
            describe=lambda: f"{self.leases_held():,} are",
            remedy="look at kwok-controller.log",
        )

    def verify(self, *, held: bool = True) -> None:
        """Wait until exactly this fleet is there, Ready, addresses distinct, leases ``held`` by kwok.

        Raises TimeLimitError with what was found instead.
        """
        size = self.size
        wanted = FleetSummary(
            nodes=size, ready=size, distinct_addresses=size, leases=size, leases_held=size if held else 0
        )
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
    async for page in bulk.rows(NODES_PATH, ("Status", "Internal-IP"), selector=FAKE_SELECTOR):
        nodes += len(page)
        ready += sum(status == "Ready" for status, _ in page)
        addresses.update(address for _, address in page)
    leases = held = 0
    async for holders in _fake_holders(bulk):
        leases += len(holders)
        held += sum(holder != "" for holder in holders)
    return FleetSummary(
        nodes=nodes,
        ready=ready,
        distinct_addresses=len(addresses),
        leases=leases,
        leases_held=held,
    )


async def _fake_holders(bulk: Bulk) -> AsyncIterator[list[str]]:
    """The holder of each fake's lease, empty for none."""
    async for page in bulk.rows(LEASES_PATH, ("Name", "Holder")):
        yield [holder for name, holder in page if name.startswith(FAKE_PREFIX)]


async def _names(bulk: Bulk, path: str) -> set[str]:
    return {
        name async for page in bulk.rows(path, ("Name",)) for (name,) in page if name.startswith(FAKE_PREFIX)
    }
