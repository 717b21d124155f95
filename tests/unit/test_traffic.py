"""Endpoints that answer and a client that asks, on the loopback; and what its lines say."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.traffic import answer, ask, parse_connects
from framework.traffic.client import client_subnet

TIMEOUT_S = 10.0


@pytest.fixture
def port() -> Iterator[int]:
    """Where a server answers, TCP and UDP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = int(probe.getsockname()[1])
    argv = [sys.executable, "-S", "-E", answer.__file__, str(free)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "answering\n"
        yield free
        server.terminate()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9"])
def test_the_address_that_was_asked_says_its_name(
    port: int, kind: socket.SocketKind, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(ask.ask(address, port, kind, TIMEOUT_S))
    (connect,) = parse_connects(capsys.readouterr().out, 0.0)
    assert (connect.backend, connect.error) == (address, None)
    assert 0 < connect.elapsed_s < TIMEOUT_S


def test_nobody_there_is_an_error_and_no_backend(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    asyncio.run(ask.ask("127.0.0.1", closed, socket.SOCK_STREAM, TIMEOUT_S))
    (connect,) = parse_connects(capsys.readouterr().out, 0.0)
    assert (connect.backend, connect.error) == (None, "refused")


def test_one_that_never_answers_times_out(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        asyncio.run(ask.ask("127.0.0.1", silent.getsockname()[1], socket.SOCK_DGRAM, 0.05))
    (connect,) = parse_connects(capsys.readouterr().out, 0.0)
    assert connect.error == "timeout"
    assert connect.elapsed_s >= 0.05


def test_attempts_keep_their_schedule(port: int) -> None:
    argv = [sys.executable, "-S", "-E", ask.__file__, "127.0.0.1", str(port), "TCP", "100", "1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        lines = [client.stdout.readline() for _ in range(50)]
        client.terminate()
    connects = parse_connects("".join(lines), 0.0)
    assert len(connects) == 50
    begun = sorted(connect.at_s for connect in connects)
    assert 0.4 < begun[-1] - begun[0] < 5.0


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


def test_clients_of_one_bridge_have_networks_of_their_own() -> None:
    subnets = [client_subnet(f"198.18.7.{host}") for host in range(1, 255)]
    assert len(set(subnets)) == len(subnets)
    assert str(subnets[0]) == "100.64.0.4/30"
