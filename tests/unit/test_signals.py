"""A signal that would end a program at once lets it clean up."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from framework.signals import ended_as_by_ctrl_c, removing


@pytest.fixture(params=[signal.SIGTERM, signal.SIGHUP])
def signum(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    before = signal.getsignal(request.param)
    yield request.param
    signal.signal(request.param, before)


def test_is_ctrl_c_also_where_that_is_ignored(signum: signal.Signals) -> None:
    signal.signal(signum, signal.SIG_DFL)
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), ended_as_by_ctrl_c():
            signal.raise_signal(signum)
    finally:
        signal.signal(signal.SIGINT, interrupt)
    assert signal.getsignal(signum) is signal.SIG_DFL


def test_what_somebody_ignores_stays_ignored(signum: signal.Signals) -> None:
    signal.signal(signum, signal.SIG_IGN)
    with ended_as_by_ctrl_c():
        signal.raise_signal(signum)
        assert signal.getsignal(signum) is signal.SIG_IGN


def test_removing_is_not_ended_by_the_first_who_tries(signum: signal.Signals) -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signum, signal.SIG_DFL)
    with removing(said.append):
        signal.raise_signal(signum)
        assert said == []
        signal.raise_signal(signal.SIGINT)
        (told,) = said
        assert "`kilonode clean`" in told
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signum) is signal.SIG_DFL
