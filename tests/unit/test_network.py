"""A cluster's addresses are nobody else's."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.errors import MissingRequirementError
from framework.network import CLUSTER_RANGE, first_free_subnet

INSIDE = st.integers(int(CLUSTER_RANGE[0]), int(CLUSTER_RANGE[-1])).map(ipaddress.IPv4Address)
ROUTES = st.builds(lambda address, prefix: f"{address}/{prefix}", INSIDE, st.integers(17, 32))


@settings(deadline=None)
@given(st.lists(ROUTES | INSIDE.map(str), max_size=60))
def test_never_overlaps_what_is_routed(taken: list[str]) -> None:
    try:
        subnet = first_free_subnet(taken)
    except MissingRequirementError:
        covered = {
            part
            for route in taken
            for part in CLUSTER_RANGE.subnets(new_prefix=24)
            if part.overlaps(ipaddress.ip_network(route, strict=False))
        }
        assert len(covered) == 512
    else:
        assert subnet.prefixlen == 24
        assert subnet.subnet_of(ipaddress.IPv4Network(CLUSTER_RANGE))
        assert not any(subnet.overlaps(ipaddress.ip_network(route, strict=False)) for route in taken)


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        ([], "198.18.0.0/24"),
        (["10.0.0.0/8", "192.168.1.0/24"], "198.18.0.0/24"),
        (["198.18.0.0/24", "198.18.1.7"], "198.18.2.0/24"),
        (["198.18.0.0/16"], "198.19.0.0/24"),
        (["198.18.0.255"], "198.18.1.0/24"),
    ],
)
def test_is_the_first_one(taken: list[str], free: str) -> None:
    assert str(first_free_subnet(taken)) == free


@pytest.mark.parametrize(
    "taken", [["198.18.0.0/15"], ["0.0.0.0/0"], [f"198.{18 + n // 256}.{n % 256}.0/24" for n in range(512)]]
)
def test_no_room_is_told_with_the_remedy(taken: list[str]) -> None:
    with pytest.raises(MissingRequirementError, match=r"198\.18\.0\.0/15 is routed") as caught:
        first_free_subnet(taken)
    assert "kilonode clean" in caught.value.remedy
