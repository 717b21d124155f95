"""Who starts a process again, and when."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from framework.process import Daemon
from framework.realnode.restarts import CONTAINER, DAEMONS, SYSTEM_DAEMON
from framework.realnode.supervisor import Supervisor
from framework.spec import Ballast, RealNodeSpec, RestartPolicy
from framework.units import GIB
from framework.wait import wait_until


@contextmanager
def supervising(restart: RestartPolicy) -> Iterator[Supervisor]:
    ballast = (Ballast(name="agent", kind="system", memory_bytes=1),)
    spec = RealNodeSpec(memory_bytes=GIB, kube_proxy="1.35.0", ballast=ballast, restart=restart)
    supervisor = Supervisor(spec)
    try:
        yield supervisor
    finally:
        supervisor.stop()


def starter(folder: Path, code: str) -> Callable[[], Daemon]:
    return lambda: Daemon.start("agent", [sys.executable, "-S", "-c", code], log_path=folder / "agent.log")


def test_a_system_daemon_is_back_at_once_and_each_end_is_noted(tmp_path: Path) -> None:
    with supervising("production") as supervisor:
        first = supervisor.start("agent", starter(tmp_path, "raise SystemExit(3)"))
        wait_until(
            lambda: len([end for end in supervisor.ends if end.restarted_s]) >= 2 or None,
            what="two restarts",
            timeout_s=20,
        )
        one, two = supervisor.ends[:2]
        assert (one.pid, one.exit_code, one.delay_s) == (first.pid, 3, SYSTEM_DAEMON.first_s)
        assert one.restarted_s is not None
        assert one.ended_s < one.restarted_s <= two.ended_s
        assert supervisor.daemons["agent"].pid != first.pid
        record = one.record(one.ended_s - 5)
        assert (record.name, record.ended_at_s) == ("agent", 5.0)


def test_without_a_policy_what_ended_stays_ended(tmp_path: Path) -> None:
    with supervising("none") as supervisor:
        daemon = supervisor.start("agent", starter(tmp_path, "pass"))
        daemon.popen.wait(20)
        assert supervisor.daemons["agent"].pid == daemon.pid
        assert supervisor.ends == ()


def test_what_was_released_is_not_started_again(tmp_path: Path) -> None:
    with supervising("production") as supervisor:
        supervisor.start("agent", starter(tmp_path, "import time; time.sleep(60)"))
        supervisor.release("agent").stop()
        assert supervisor.daemons == {}
        assert supervisor.ends == ()


@pytest.mark.parametrize(("earlier", "delay_s"), [(0, 10), (1, 20), (4, 160), (5, 300), (50, 300)])
def test_a_containers_delay_doubles_up_to_five_minutes(earlier: int, delay_s: float) -> None:
    assert CONTAINER.delay_s(earlier) == delay_s


def test_a_units_delay_is_always_the_same() -> None:
    assert [DAEMONS["kubelet"].delay_s(n) for n in range(3)] == [10, 10, 10]
    assert DAEMONS["containerd"].delay_s(7) == 5
