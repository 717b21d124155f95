"""The one way to wait.

``wait_until`` asks a probe again and again until it gives something other than None. The error at the
time limit carries the last state that was seen, so that a reader knows how far it came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tenacity

from framework.errors import TimeLimitError

T = TypeVar("T")


def wait_until(
    probe: Callable[[], T | None],
    *,
    what: str,
    timeout_s: float,
    interval_s: float = 0.1,
    describe: Callable[[], str] = lambda: "nothing was seen",
    remedy: str = "look at the logs in the run folder",
) -> T:
    """The first value other than None (False counts as a value) that ``probe`` gives.

    Raises TimeLimitError after ``timeout_s`` with ``describe()`` as the last state seen. Exceptions of the
    probe pass through.
    """
    waiting = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda value: value is None),
        stop=tenacity.stop_after_delay(timeout_s),
        wait=tenacity.wait_fixed(interval_s),
    )
    try:
        value = waiting(probe)
    except tenacity.RetryError:
        raise TimeLimitError(
            f"{what} did not happen within {timeout_s:g} s; last seen: {describe()}", remedy=remedy
        ) from None
    assert value is not None  # noqa: S101 - the retry condition says so
    return value
