"""Counts from recorded listings of both layouts."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.observe.ruleset import RulesetCounter
from framework.outcome import Ruleset

RECORDED = Path(__file__).parent / "recorded" / "ruleset"
CHAINS = (RECORDED / "endpoint-chains.txt").read_text()
MAP = (RECORDED / "endpoint-map.txt").read_text()
SERVICE = "default/measured"


def count(listing: str, service: str | None = SERVICE) -> Ruleset:
    counter = RulesetCounter(None if service is None else {service})
    counter.feed(listing)
    return counter.ruleset()


def test_a_chain_for_each_endpoint() -> None:
    ruleset = count(CHAINS)
    assert ruleset == Ruleset(
        tables=1,
        chains=CHAINS.count("\tchain "),
        rules=3 + 2 * 2 + 2 * 6,
        elements=4 + 5 + 1,
        endpoints=5,
        listing_bytes=len(CHAINS),
        service_ports=1,
    )


def test_a_map_of_endpoints() -> None:
    ruleset = count(MAP)
    assert ruleset == Ruleset(
        tables=1,
        chains=MAP.count("\tchain "),
        rules=3 + 2 * 2,
        elements=6 + 5,
        endpoints=5,
        listing_bytes=len(MAP),
        service_ports=1,
    )


@pytest.mark.parametrize("listing", [CHAINS, MAP])
def test_endpoints_are_those_of_the_service(listing: str) -> None:
    assert count(listing, "default/kubernetes").endpoints == 1
    assert count(listing, None).endpoints == 6
    assert count(listing, "default/measure").endpoints == 0
    assert count(listing, "default/other").endpoints == 0


@pytest.mark.parametrize("listing", [CHAINS, MAP])
def test_ports_are_those_of_the_asked_services(listing: str) -> None:
    for service, ports in ((SERVICE, 1), ("default/kubernetes", 1), ("default/measure", 0), (None, 2)):
        assert count(listing, service).service_ports == ports


def test_several_services_that_share_their_endpoints() -> None:
    """Each counts: 10.64.0.1 is an endpoint of both."""
    shared = MAP.replace("dnat to 10.64.234.96:80", "dnat to 10.64.0.1:80")
    counter = RulesetCounter({SERVICE, "default/kubernetes"})
    counter.feed(shared)
    assert (counter.ruleset().endpoints, counter.ruleset().service_ports) == (6, 2)


@pytest.mark.parametrize("version", ["1.35.0", "1.37.2"])
def test_a_recorded_service_without_an_endpoint_for_this_node(version: str) -> None:
    ruleset = count((RECORDED / f"local-{version}.txt").read_text(), "default/everywhere")
    assert (ruleset.endpoints, ruleset.service_ports) == (0, 1)


def test_addresses_are_counted_once_and_of_both_families() -> None:
    four = count(MAP.replace("10.64.0.2 . 80", "10.64.0.1 . 80"))
    assert four.endpoints == 4
    six = MAP.replace("table ip ", "table ip6 ").replace("dnat ip to", "dnat ip6 to")
    for last in range(1, 6):
        six = six.replace(f": 10.64.0.{last} . 80", f": fd00:10:180::{last} . 80")
    assert count(six).endpoints == 5
    assert count(CHAINS.replace("dnat to 10.64.0.1:80", "dnat to [fd00::1]:80")).endpoints == 5


def test_other_tables_are_left_out_but_for_their_bytes() -> None:
    other = CHAINS.replace("table ip kube-proxy {", "table inet firewalld {")
    ruleset = count(other + MAP)
    assert (ruleset.tables, ruleset.rules, ruleset.endpoints) == (1, 7, 5)
    assert ruleset.listing_bytes == len(other) + len(MAP)
    assert count(other).chains == 0


def test_commas_and_braces_that_are_no_elements() -> None:
    listing = (
        "table ip kube-proxy {\n\tchain filter-forward {\n"
        "\t\ttype filter hook forward priority dstnat; policy accept;\n"
        '\t\tct state established,related accept comment "a, {b"\n'
        "\t\tct state { established, related } accept\n\t}\n}\n"
    )
    ruleset = count(listing)
    assert (ruleset.rules, ruleset.elements) == (2, 2)


@given(st.lists(st.integers(0, len(CHAINS) + len(MAP))))
def test_pieces_of_any_size_give_the_same(cuts: list[int]) -> None:
    text = CHAINS + MAP
    counter = RulesetCounter({SERVICE})
    edges = [0, *sorted(cuts), len(text)]
    for start, end in itertools.pairwise(edges):
        counter.feed(text[start:end])
    assert counter.ruleset() == count(text)


@given(st.text(alphabet='table chain{}\n\t,.:"dnat to 0123', max_size=300))
def test_no_text_is_an_error(text: str) -> None:
    count(text + "\n")


def test_nothing_programmed() -> None:
    assert count("") == Ruleset(
        tables=0, chains=0, rules=0, elements=0, endpoints=0, listing_bytes=0, service_ports=0
    )
