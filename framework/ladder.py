"""The endpoint ladder: one parameter, ``endpoints``, with short ids (``10k``), smallest first."""

from __future__ import annotations

import pytest

from framework.spec import require_count
from framework.units import short_count


def endpoints_ladder(*counts: int) -> pytest.MarkDecorator:
    """Parametrise a test over ``endpoints``. Raises BadInputError for a count outside 1 to a million."""
    rungs = sorted({require_count(count, where="endpoints_ladder") for count in counts})
    return pytest.mark.parametrize("endpoints", rungs, ids=[short_count(rung) for rung in rungs])
