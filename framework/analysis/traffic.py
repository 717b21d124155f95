"""What clients of a Service met in a stretch of time: pure functions of their attempts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from typing import Final

from framework.outcome import Connect, Traffic

PERCENTILE_99_ATTEMPTS_MIN: Final = 100
"""Of fewer connects the 99th percentile is their slowest, which says nothing."""
GONE: Final = "gone"
"""The error of a connect that was answered by an address which is no endpoint any longer."""


def traffic(
    connects: Iterable[Connect],
    *,
    begin_s: float,
    end_s: float,
    endpoints: int,
    gone: Set[str] = frozenset(),
) -> Traffic:
    """What attempts that began from ``begin_s`` on and before ``end_s`` say about a Service.

    ``endpoints`` is how many it has, ``gone`` the addresses that it has no longer. An attempt that was still
    under way when ``connects`` were read is not among them, and it is the failing ones that take long: let
    the stretch end an attempt's time before that.
    """
    seen = [connect for connect in connects if begin_s <= connect.at_s < end_s]
    errors = Counter(GONE if each.backend in gone else each.error for each in seen)
    served = [each for each in seen if each.error is None and each.backend not in gone]
    answers = Counter(each.backend for each in served if each.backend is not None)
    times_s = sorted(connect.elapsed_s for connect in served)
    del errors[None]
    return Traffic(
        begin_s=begin_s,
        end_s=end_s,
        attempts=len(seen),
        served=len(served),
        success=len(served) / len(seen) if seen else None,
        connect_s_p50=_percentile(times_s, 0.5),
        connect_s_p99=_percentile(times_s, 0.99) if len(times_s) >= PERCENTILE_99_ATTEMPTS_MIN else None,
        backends=len(answers),
        backends_expected=_distinct_expected(answers.total(), endpoints),
        errors={str(error): count for error, count in errors.items()},
        busiest_share=max(answers.values()) / answers.total() if answers else None,
    )


def _distinct_expected(picks: int, of: int) -> float:
    """How many of ``of`` things ``picks`` choices with equal chances reach on average."""
    if of == 1:
        return float(min(1, picks))
    return of * -math.expm1(picks * math.log1p(-1 / of))


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
