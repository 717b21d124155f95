"""Counts from a recorded listing of iptables mode."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.observe.iptables import IptablesCounter
from framework.outcome import Ruleset

RECORDED = Path(__file__).parent / "recorded" / "ruleset"
LISTING = (RECORDED / "iptables-save.txt").read_text()
SERVICE = "default/everywhere"


def count(*listings: str, service: str | None = SERVICE) -> Ruleset:
    counter = IptablesCounter(None if service is None else {service})
    for listing in listings:
        counter.next_family()
        counter.feed(listing)
    return counter.ruleset()


def test_a_chain_for_each_endpoint() -> None:
    assert count(LISTING) == Ruleset(
        tables=3,
        chains=LISTING.count("\n:KUBE-"),
        rules=LISTING.count("\n-A "),
        elements=0,
        endpoints=3,
        listing_bytes=len(LISTING),
        service_ports=1,
    )


def test_endpoints_are_those_of_the_service() -> None:
    assert count(LISTING, service="default/kubernetes").endpoints == 1
    assert count(LISTING, service=None).endpoints == 4
    for other in ("default/every", "other/everywhere"):
        found = count(LISTING, service=other)
        assert (found.endpoints, found.service_ports) == (0, 0)


@pytest.mark.parametrize("reason", ["has no local endpoints", "has no endpoints"])
def test_a_service_whose_packets_are_dropped_has_a_port_and_no_endpoint(reason: str) -> None:
    rule = (
        f'-A KUBE-SERVICES -d 10.96.0.9/32 -p tcp -m comment --comment "default/away:p80 {reason}" '
        "-m tcp --dport 80 -j DROP\n"
    )
    found = count(f"*filter\n:KUBE-SERVICES - [0:0]\n{rule}COMMIT\n" + LISTING, service="default/away")
    assert (found.endpoints, found.service_ports) == (0, 1)


@pytest.mark.parametrize("address", ["10.64.0.{}", "fd00:10:64::{}"])
def test_endpoints_that_the_service_has_no_longer_are_unexpected(address: str) -> None:
    listing = (
        LISTING.replace("10.64.0.", "[fd00:10:64::").replace(":80\n", "]:80\n") if ":" in address else LISTING
    )
    counter = IptablesCounter({SERVICE})
    counter.feed(listing)
    now = {(address.format(number), "80") for number in (1, 2, 3)}
    assert counter.ruleset(now).unexpected == 0
    assert counter.ruleset(now - {(address.format(2), "80")}).unexpected == 1
    assert counter.ruleset().unexpected == 0


def test_families_have_chains_of_the_same_name() -> None:
    six = LISTING.replace("10.64.0.", "[fd00:10:64::").replace(":80\n", "]:80\n")
    found = count(LISTING, six)
    assert (found.endpoints, found.service_ports, found.tables) == (6, 2, 6)


def test_affinity_leads_to_each_endpoint_twice() -> None:
    lines = LISTING.splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if "--probability" in line)
    sticky = lines[first].partition(" -m statistic")[0]
    endpoint_chain = lines[first].split()[-1]
    lines.insert(first, f"{sticky} -m recent --rcheck --seconds 10800 --reap -j {endpoint_chain}\n")
    assert count("".join(lines)).endpoints == 3


def test_rules_of_others_are_left_out_but_for_their_bytes() -> None:
    other = "*nat\n:DOCKER - [0:0]\n-A DOCKER -i docker0 -j RETURN\nCOMMIT\n"
    found = count(other + LISTING)
    assert (found.chains, found.rules) == (count(LISTING).chains, count(LISTING).rules)
    assert found.listing_bytes == len(other) + len(LISTING)


@given(st.lists(st.integers(0, len(LISTING))))
def test_pieces_of_any_size_give_the_same(cuts: list[int]) -> None:
    counter = IptablesCounter({SERVICE})
    edges = [0, *sorted(cuts), len(LISTING)]
    for start, end in itertools.pairwise(edges):
        counter.feed(LISTING[start:end])
    assert counter.ruleset() == count(LISTING)


@given(st.text(alphabet=':-A KUBESVCP"/*\n0123 -j', max_size=300))
def test_no_text_is_an_error(text: str) -> None:
    count(text + "\n")
