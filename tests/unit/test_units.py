"""Quantities as people and Kubernetes write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.errors import BadInputError
from framework.units import GIB, KIB, MIB, mib, parse_bytes, parse_count, short_count


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1500", 1500),
        ("2GiB", 2 * GIB),
        ("2Gi", 2 * GIB),
        ("1400 MiB", 1400 * MIB),
        (" 64ki ", 64 * KIB),
        ("500M", 500_000_000),
        ("0.5G", 500_000_000),
        ("1.5GiB", 1536 * MIB),
        ("1_000k", 1_000_000),
        ("1TiB", 1024 * GIB),
    ],
)
def test_bytes(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1", "1e9", "2 Gi B", "1XiB", "1.5", "0.3Ki", "\u0661GiB", "1.GiB"]
)
def test_what_is_no_size_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(BadInputError, match="Remedy: give") as caught:
        parse_bytes(text, where="--memory")
    assert caught.value.where == "--memory"


@given(
    st.integers(0, 10**15), st.sampled_from([("", 1), ("KiB", KIB), ("Mi", MIB), ("gib", GIB), ("M", 10**6)])
)
def test_any_whole_amount_of_any_unit_is_exact(amount: int, unit: tuple[str, int]) -> None:
    suffix, factor = unit
    assert parse_bytes(f"{amount}{suffix}") == amount * factor


@pytest.mark.parametrize(
    ("text", "expected"), [("10", 10), ("10_000", 10_000), ("10k", 10_000), ("2.5K", 2500), ("1m", 1_000_000)]
)
def test_counts(text: str, expected: int) -> None:
    assert parse_count(text) == expected


@pytest.mark.parametrize("text", ["", "k", "ten", "1.5", "10Gi", "-3"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="Remedy: give"):
        parse_count(text, where="endpoints")


@pytest.mark.parametrize(
    ("memory_bytes", "expected"),
    [
        (None, "?"),
        (0, "0.0"),
        (5 * MIB + MIB // 2, "5.5"),
        (111 * MIB, "111"),
        (2 * GIB, "2,048"),
        (-3 * MIB, "-3.0"),
    ],
)
def test_mib_for_display(memory_bytes: int | None, expected: str) -> None:
    assert mib(memory_bytes) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0"), (10, "10"), (999, "999"), (1000, "1k"), (1500, "1500"), (100_000, "100k"), (2_000_000, "2m")],
)
def test_short_counts(count: int, expected: str) -> None:
    assert short_count(count) == expected


@given(st.integers(0, 10**9))
def test_a_short_count_reads_back_as_itself(count: int) -> None:
    assert parse_count(short_count(count)) == count
