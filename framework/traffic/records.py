"""The lines that a client writes, one for each attempt."""

from __future__ import annotations

import re
from typing import Final

from framework.outcome import Connect

_LINE: Final = re.compile(
    r"(?P<at>\d+\.\d+) (?P<elapsed>\d+\.\d+) (?P<backend>[0-9A-Fa-f.:]+|-) (?P<why>[a-z0-9]*)\n", re.ASCII
)


def parse_connects(text: str, zero_s: float) -> tuple[Connect, ...]:
    """The attempts in ``text``; ``zero_s`` is the run's zero on CLOCK_BOOTTIME.

    What is no such line, a last one that was cut short too, is left out.
    """
    return tuple(
        Connect(
            at_s=float(line["at"]) - zero_s,
            elapsed_s=float(line["elapsed"]),
            backend=None if line["backend"] == "-" else line["backend"],
            error=line["why"] or None,
        )
        for line in map(_LINE.fullmatch, text.splitlines(keepends=True))
        if line is not None
    )
