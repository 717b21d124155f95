"""The one way to wait."""

from __future__ import annotations

import pytest

from framework.errors import TimeLimitError
from framework.wait import wait_until


def test_gives_the_first_value() -> None:
    values = iter([None, None, "ready", "later"])
    assert wait_until(lambda: next(values), what="it", timeout_s=5, interval_s=0) == "ready"


@pytest.mark.parametrize("value", [False, 0, "", ()])
def test_anything_but_none_is_a_value(value: object) -> None:
    assert wait_until(lambda: value, what="it", timeout_s=5) == value


def test_a_value_needs_no_wait() -> None:
    assert wait_until(lambda: 1, what="it", timeout_s=0, interval_s=3600) == 1


def test_the_time_limit_tells_what_was_seen_last() -> None:
    seen: list[int] = []

    def probe() -> None:
        seen.append(len(seen))

    with pytest.raises(TimeLimitError) as caught:
        wait_until(
            probe,
            what="the node's Ready",
            timeout_s=0.05,
            interval_s=0.01,
            describe=lambda: f"look {seen[-1]}",
            remedy="read kubelet.log",
        )
    assert str(caught.value) == (
        f"the node's Ready did not happen within 0.05 s; last seen: look {seen[-1]}. Remedy: read kubelet.log"
    )
    assert len(seen) > 1


def test_without_a_description() -> None:
    with pytest.raises(TimeLimitError, match="last seen: nothing was seen"):
        wait_until(lambda: None, what="it", timeout_s=0, interval_s=0)


def test_errors_of_the_probe_pass_through_at_once() -> None:
    calls: list[int] = []

    def probe() -> int:
        calls.append(1)
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        wait_until(probe, what="it", timeout_s=5)
    assert len(calls) == 1
