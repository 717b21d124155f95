"""Endpoints that answer and a client that asks, on the loopback; and what its lines say."""

from __future__ import annotations

import ipaddress
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.errors import KilonodeError
from framework.fleet import ENDPOINTS_V6, FAKE_RANGE
from framework.network import CLUSTER_RANGE, link_local
from framework.outcome import Connect
from framework.process import Daemon
from framework.spec import Protocol
from framework.traffic import Asking, answer, ask, parse_connects
from framework.traffic.client import CLIENTS_RANGE, CLIENTS_RANGE_V6, client_subnets
from framework.wait import wait_until

WAIT_S = 10.0
PROTOCOLS: tuple[Protocol, ...] = ("TCP", "UDP")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here; remedy: boot without ipv6.disable=1")


@contextmanager
def program(*argv: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-S", "-E", *argv], stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def lines(running: subprocess.Popen[str], count: int) -> str:
    assert running.stdout is not None
    return "".join(running.stdout.readline() for _ in range(count))


def connects(
    count: int, address: str, port: int, protocol: Protocol, *, per_s: float = 50, timeout_s: float = WAIT_S
) -> tuple[Connect, ...]:
    """The first attempts that ended."""
    with program(ask.__file__, address, str(port), protocol, str(per_s), str(timeout_s)) as client:
        return parse_connects(lines(client, count), 0.0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where a server answers, TCP and UDP."""
    free = free_port()
    with program(answer.__file__, str(free)) as server:
        assert lines(server, 1) == "answering\n"
        yield free


class TestAttempts:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", pytest.param("::1", marks=needs_ipv6)])
    def test_the_address_that_was_asked_says_its_name(
        self, port: int, protocol: Protocol, address: str
    ) -> None:
        for connect in connects(3, address, port, protocol):
            assert (connect.backend, connect.error) == (address, None)
            assert 0 < connect.elapsed_s < WAIT_S

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_nobody_there_is_an_error_and_no_backend(self, protocol: Protocol) -> None:
        for connect in connects(3, "127.0.0.1", free_port(), protocol):
            assert (connect.backend, connect.error) == (None, "refused")
            assert connect.elapsed_s < WAIT_S

    def test_a_datagram_that_is_never_answered_times_out(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
            deaf.bind(("127.0.0.1", 0))
            found = connects(5, "127.0.0.1", deaf.getsockname()[1], "UDP", timeout_s=0.05)
        assert {connect.error for connect in found} == {"timeout"}
        assert all(0.05 <= connect.elapsed_s < WAIT_S for connect in found)

    def test_a_full_queue_of_connections_times_out(self) -> None:
        with ExitStack() as stack:
            full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            name = full.getsockname()
            held = [stack.enter_context(socket.socket()) for _ in range(4)]
            for each in held:
                each.setblocking(False)
                each.connect_ex(name)
            (connect,) = connects(1, "127.0.0.1", name[1], "TCP", timeout_s=0.2)
        assert connect.error == "timeout"
        assert connect.elapsed_s >= 0.2

    def test_a_connection_that_stands_is_served_though_nobody_speaks(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            (connect,) = connects(1, "127.0.0.1", silent.getsockname()[1], "TCP", timeout_s=0.2)
        assert (connect.backend, connect.error) == (None, None)
        assert connect.elapsed_s < 0.2, "the handshake's time and not that of the wait for a name"


class TestSchedule:
    def test_attempts_keep_it(self, port: int) -> None:
        begun = [connect.at_s for connect in connects(50, "127.0.0.1", port, "TCP", per_s=100)]
        assert begun == sorted(begun)
        assert 0.4 < begun[-1] - begun[0] < 5.0

    def test_attempts_do_not_wait_for_each_other(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
            deaf.bind(("127.0.0.1", 0))
            found = connects(10, "127.0.0.1", deaf.getsockname()[1], "UDP", timeout_s=1.0)
        first, second, *_ = found
        assert second.at_s - first.at_s < 1.0 <= first.elapsed_s

    def test_a_client_that_stood_still_neither_makes_up_for_it_nor_calls_it_a_failure(
        self, port: int
    ) -> None:
        with program(ask.__file__, "127.0.0.1", str(port), "TCP", "50", "0.2") as client:
            before = lines(client, 5)
            client.send_signal(signal.SIGSTOP)
            time.sleep(0.5)
            client.send_signal(signal.SIGCONT)
            found = parse_connects(before + lines(client, 20), 0.0)
        assert len(found) == 25
        assert {connect.error for connect in found} == {None}
        begun = [connect.at_s for connect in found]
        (gap,) = [later - earlier for earlier, later in pairwise(begun) if later - earlier > 0.4]
        assert gap < WAIT_S
        assert begun[-1] - begun[0] > 24 / 50 + 0.4

    def test_each_attempt_has_a_source_port_of_its_own(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
            heard.bind(("127.0.0.1", 0))
            heard.settimeout(WAIT_S)
            name = heard.getsockname()
            with program(ask.__file__, name[0], str(name[1]), "UDP", "200", "0.01"):
                ports = [heard.recvfrom(8)[1][1] for _ in range(40)]
        assert len(set(ports)) == 40

    def test_a_source_port_that_is_taken_is_passed_over(self, port: int) -> None:
        """All but one of them are free on the loopback; a client in a namespace of its own has them all."""
        asking = socket.socket()
        with socket.create_server(("0.0.0.0", 0)) as taken, asking:  # noqa: S104
            attempt = ask.Attempt(asking)
            assert not attempt.begin(taken.getsockname()[1], ("127.0.0.1", port), WAIT_S)
            assert not attempt.ended


class TestAnswers:
    def test_a_client_that_can_not_be_answered_does_not_end_the_server(self, port: int) -> None:
        with socket.socket() as rude:
            rude.connect(("127.0.0.1", port))
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.sendto(b"?", ("127.0.0.1", port))
        assert {connect.error for connect in connects(5, "127.0.0.1", port, "UDP")} == {None}
        assert {connect.error for connect in connects(5, "127.0.0.1", port, "TCP")} == {None}


class TestAsking:
    @pytest.fixture
    def writer(self, tmp_path: Path) -> Iterator[Daemon]:
        """A program that stays; what it wrote is written by the test."""
        daemon = Daemon.start("client", ["sleep", "60"], log_path=tmp_path / "client.log")
        yield daemon
        daemon.stop()

    def test_gives_each_attempt_once_and_a_line_when_it_is_whole(self, writer: Daemon) -> None:
        asking = Asking(writer)
        assert asking.connects(0.0) == ()
        with writer.log_path.open("a") as log:
            print("100.5 0.001 10.64.0.1 ", file=log)
            print("100.6 0.0", end="", file=log, flush=True)
            assert [connect.at_s for connect in asking.connects(100.0)] == [0.5]
            assert asking.connects(100.0) == ()
            print("02 - timeout", file=log, flush=True)
            assert [connect.error for connect in asking.connects(100.0)] == ["timeout"]

    def test_one_that_ended_by_itself_is_no_silence(self, writer: Daemon) -> None:
        asking = Asking(writer)
        writer.popen.kill()
        wait_until(lambda: writer.exit_code, what="its end", timeout_s=WAIT_S)
        with pytest.raises(KilonodeError, match="client ended with signal SIGKILL"):
            asking.connects(0.0)

    def test_one_that_was_stopped_can_still_be_read(self, writer: Daemon) -> None:
        asking = Asking(writer)
        writer.log_path.write_text("1.5 0.001 10.64.0.1 \n")
        asking.stop()
        assert [connect.backend for connect in asking.connects(0.0)] == ["10.64.0.1"]


class TestLines:
    def test_times_are_after_the_runs_zero(self) -> None:
        (connect,) = parse_connects("100.5 0.001 10.64.0.1 \n", 100.0)
        assert (connect.at_s, connect.elapsed_s) == (0.5, 0.001)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "1.0 0.1 10.64.0.1",
            "1.0 0.1 10.64.0.1 timeout",
            "Traceback (most recent call):\n",
            "a b - c\n",
        ],
    )
    def test_what_is_no_whole_line_is_left_out(self, text: str) -> None:
        assert parse_connects(text, 0.0) == ()

    @given(st.text(alphabet="0123456789.- abct\n", max_size=200))
    def test_anything_can_be_read(self, text: str) -> None:
        for connect in parse_connects(text, 0.0):
            assert connect.elapsed_s >= 0

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 10**12),
                st.integers(0, 10**9),
                st.none() | st.ip_addresses(network=FAKE_RANGE) | st.ip_addresses(network=ENDPOINTS_V6),
                st.none() | st.sampled_from([*ask.WHY.values(), "eperm"]),
            )
        ),
        st.integers(0, 300),
    )
    def test_what_was_written_is_read_but_for_a_last_line_that_was_cut(
        self, attempts: list[tuple[int, int, object, str | None]], cut: int
    ) -> None:
        text = "".join(
            f"{at_us / 1e6:.6f} {elapsed_us / 1e6:.6f} {backend or '-'} {why or ''}\n"
            for at_us, elapsed_us, backend, why in attempts
        )
        found = parse_connects(text[:cut], 0.0)
        assert len(found) == text[:cut].count("\n")
        for connect, (at_us, elapsed_us, backend, why) in zip(found, attempts, strict=False):
            assert connect.at_s == pytest.approx(at_us / 1e6, abs=1e-6)
            assert connect.elapsed_s == pytest.approx(elapsed_us / 1e6, abs=1e-6)
            assert (connect.backend, connect.error) == (None if backend is None else str(backend), why)


class TestAddresses:
    def test_clients_of_one_bridge_have_networks_of_their_own(self) -> None:
        subnets = [subnet for host in range(1, 255) for subnet in client_subnets(f"198.18.7.{host}")]
        assert len(set(subnets)) == len(subnets)
        assert [str(subnet) for subnet in subnets[:2]] == ["100.64.0.4/30", "fd00:100:64:1::/64"]

    def test_no_range_is_in_another(self) -> None:
        services = ipaddress.IPv4Network("10.96.0.0/12")
        four = [CLIENTS_RANGE, FAKE_RANGE, CLUSTER_RANGE, services]
        for index, network in enumerate(four):
            assert not any(network.overlaps(other) for other in four[:index])
        assert not CLIENTS_RANGE_V6.overlaps(ENDPOINTS_V6)

    def test_neighbours_have_link_local_addresses_of_their_own(self) -> None:
        assert str(link_local("198.18.0.10")) == "fe80::c612:a"
        assert re.fullmatch(r"fe80::[0-9a-f]{4}:[0-9a-f]{1,4}", str(link_local("198.19.255.254")))
