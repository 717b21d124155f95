"""Fake nodes against a real API server, kwok and node controller: exact at every size."""

from __future__ import annotations

import pytest

from framework.cluster import EmbeddedCluster
from framework.errors import BadInputError
from framework.fleet import Fleet, FleetSummary


class InterruptedHereError(Exception):
    """What a test raises in the middle of a growth."""


def exactly(nodes: int) -> FleetSummary:
    return FleetSummary(nodes=nodes, ready=nodes, distinct_addresses=nodes, leases=nodes, leases_held=nodes)


@pytest.fixture
def empty(fakes: Fleet) -> Fleet:
    fakes.shrink_to(0)
    return fakes


def test_grows_and_shrinks_exactly(empty: Fleet, cluster: EmbeddedCluster) -> None:
    fleet, heard = empty, [0]
    fleet.grow_to(50)
    assert fleet.summary() == exactly(50)
    change = fleet.grow_to(200, heard.append, during_load=cluster.controllers_paused)
    assert (fleet.size, fleet.summary(), change.requests) == (200, exactly(200), 300)
    assert heard[-1] == 200
    assert heard == sorted(heard)
    assert fleet.shrink_to(20).requests == 360
    assert fleet.summary() == exactly(20)
    fleet.grow_to(60)
    assert fleet.summary() == exactly(60)
    assert fleet.grow_to(60).requests == fleet.shrink_to(60).requests == 0
    with pytest.raises(BadInputError, match="is outside 1 to 1,000,000"):
        fleet.grow_to(1_000_001)


def test_an_interrupted_growth_is_resumed(empty: Fleet) -> None:
    def interrupt(done: int) -> None:
        if done >= 700:
            raise InterruptedHereError

    with pytest.raises(InterruptedHereError):
        empty.grow_to(1000, interrupt)
    left = empty.summary()
    assert empty.size == 0
    assert left.leases == 1000
    assert 400 <= left.nodes < 1000
    sent = empty.grow_to(1000).requests
    assert sent == 1000 - left.nodes
    assert empty.summary() == exactly(1000)
    empty.shrink_to(300)
