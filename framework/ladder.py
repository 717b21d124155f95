"""The endpoint ladder: one parameter, ``endpoints``, with short ids (``10k``), smallest first."""

from __future__ import annotations

import pytest

from framework.errors import BadInputError
from framework.spec import require_count
from framework.units import short_count


def endpoints_ladder(*counts: int) -> pytest.MarkDecorator:
    """Parametrise a test over ``endpoints``.

    Raises BadInputError for a count outside 1 to a million, and for no count at all: pytest would skip a test
    without parameters, and a ladder that measures nothing would look green.
    """
    if not counts:
        raise BadInputError(
            "the ladder has no rung", where="endpoints_ladder", remedy="give at least one count of endpoints"
        )
    rungs = sorted({require_count(count, where="endpoints_ladder") for count in counts})
    return pytest.mark.parametrize("endpoints", rungs, ids=[short_count(rung) for rung in rungs])
