"""Quantities: bytes inside, MiB only on display.

Memory sizes are read as Kubernetes writes them (``2Gi``, ``500M``) and as people write them (``2GiB``,
``1400 MiB``); counts as ``10k`` or ``10_000``.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from framework.errors import BadInputError

KIB: Final = 1024
MIB: Final = 1024**2
GIB: Final = 1024**3

_BYTE_UNITS: Final = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1000,
    "ki": KIB,
    "kib": KIB,
    "m": 1000**2,
    "mb": 1000**2,
    "mi": MIB,
    "mib": MIB,
    "g": 1000**3,
    "gb": 1000**3,
    "gi": GIB,
    "gib": GIB,
    "t": 1000**4,
    "tb": 1000**4,
    "ti": 1024**4,
    "tib": 1024**4,
}
_COUNT_UNITS: Final = {"": 1, "k": 1000, "m": 1_000_000}
_QUANTITY: Final = re.compile(r"\s*([0-9][0-9_]{0,40}(?:\.[0-9]{1,40})?)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_bytes(text: str, *, where: str = "memory") -> int:
    """Bytes in a memory size such as ``2GiB``, ``1400Mi``, ``0.5G``; a plain number is bytes.

    Raises BadInputError for anything else, and for sizes that are no whole number of bytes.
    """
    amount, unit = _split(text, where, "a size such as 2GiB, 1400Mi or 500M")
    factor = _BYTE_UNITS.get(unit.lower())
    if factor is None:
        raise BadInputError(
            f"{text!r} has the unknown unit {unit!r}",
            where=where,
            remedy="give a size such as 2GiB, 1400Mi or 500M",
        )
    return _whole(amount * factor, text, where, "bytes")


def parse_count(text: str, *, where: str = "count") -> int:
    """A count such as ``10000``, ``10_000``, ``10k`` or ``1m`` (a million); else BadInputError."""
    amount, unit = _split(text, where, "a count such as 1000, 10k or 1m")
    factor = _COUNT_UNITS.get(unit.lower())
    if factor is None:
        raise BadInputError(
            f"{text!r} is no count", where=where, remedy="give a count such as 1000, 10k or 1m"
        )
    return _whole(amount * factor, text, where, "items")


def _split(text: str, where: str, wanted: str) -> tuple[Fraction, str]:
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise BadInputError(f"{text!r} is no quantity", where=where, remedy=f"give {wanted}")
    return Fraction(match.group(1).replace("_", "")), match.group(2)


def _whole(amount: Fraction, text: str, where: str, noun: str) -> int:
    if amount.denominator != 1:
        raise BadInputError(
            f"{text!r} is no whole number of {noun}", where=where, remedy="give a coarser value"
        )
    return int(amount)


def mib(memory_bytes: int | None) -> str:
    """``memory_bytes`` for display, in MiB: one decimal below 100, none above; ``?`` for an unknown."""
    if memory_bytes is None:
        return "?"
    value = memory_bytes / MIB
    return f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def short_count(count: int) -> str:
    """``10k`` for 10,000, ``1m`` for a million, plain digits for what is no whole thousand."""
    for size, suffix in ((1_000_000, "m"), (1000, "k")):
        if count >= size and count % size == 0:
            return f"{count // size}{suffix}"
    return str(count)
