"""docker and podman, played by a program that keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from framework.containers import Engine, Program
from framework.process import CommandError

SUBNET = IPv4Network("198.18.1.0/24")
CONTAINER = [
    {
        "Id": "0123",
        "Name": "/worker",
        "State": {"Running": True, "Pid": 42},
        "Config": {"Image": "node"},
        "NetworkSettings": {"Networks": {"net": {"IPAddress": "198.18.1.3"}}},
        "Mounts": [{"Source": "/volume", "Destination": "/var"}],
    }
]
Played = Callable[..., Engine]


@pytest.fixture
def asked(tmp_path: Path) -> Callable[[], list[str]]:
    return lambda: (tmp_path / "asked").read_text().splitlines()


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    """``played(program, body)``: an engine whose program is a shell script with that body."""

    def play(program: Program, body: str = "") -> Engine:
        path = tmp_path / program
        path.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\n{body}\n')
        path.chmod(0o700)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return Engine(program)

    return play


class TestNetworks:
    def test_docker_names_the_bridge(self, played: Played, asked: Callable[[], list[str]]) -> None:
        assert played("docker").add_network("kilonode-1", SUBNET, link="kn1k") == "kn1k"
        (words,) = asked()
        assert "--opt com.docker.network.bridge.name=kn1k" in words
        assert "--subnet 198.18.1.0/24 --gateway 198.18.1.1 --ip-range 198.18.1.0/25" in words

    def test_an_old_podman_is_asked_for_the_name_that_it_chose(
        self, played: Played, asked: Callable[[], list[str]]
    ) -> None:
        engine = played(
            "podman",
            """case $* in
            *--interface-name*) echo 'Error: unknown flag: --interface-name' >&2; exit 125;;
            *inspect*) echo '[{"network_interface": "podman1"}]';;
            esac""",
        )
        assert engine.add_network("kilonode-1", SUBNET, link="kn1k") == "podman1"
        assert [words.split()[1] for words in asked()] == ["create", "create", "inspect"]

    def test_what_podman_refuses_is_told(self, played: Played) -> None:
        engine = played("podman", "echo 'Error: subnet 198.18.1.0/24 is already used' >&2; exit 125")
        with pytest.raises(CommandError, match="already used"):
            engine.add_network("kilonode-1", SUBNET, link="kn1k")


class TestFiles:
    @pytest.mark.parametrize(
        ("program", "said"),
        [
            ("docker", "Error response from daemon: Could not find the file /x in container worker"),
            ("podman", 'Error: "/x" could not be found on container worker: no such file or directory'),
        ],
    )
    def test_a_file_that_is_not_there_is_no_error(
        self, played: Played, program: Program, said: str, tmp_path: Path
    ) -> None:
        engine = played(program, f"echo '{said}' >&2; exit 1")
        assert not engine.copy_out("worker", "/x", tmp_path / "x")

    def test_a_copy_that_fails_is_one(self, played: Played, tmp_path: Path) -> None:
        engine = played("podman", "echo 'Error: unknown flag: --follow-link' >&2; exit 125")
        with pytest.raises(CommandError, match="unknown flag"):
            engine.copy_out("worker", "/x", tmp_path / "x")


@pytest.mark.parametrize(
    ("program", "order"), [("docker", ["update", "start"]), ("podman", ["start", "update"])]
)
def test_a_container_starts_with_its_limit_where_the_engine_can(
    played: Played, asked: Callable[[], list[str]], program: Program, order: list[str]
) -> None:
    engine = played(program, f"case $1 in inspect) echo '{json.dumps(CONTAINER)}';; esac")
    container = engine.start("worker", memory_bytes=1 << 30)
    assert (container.pid, container.address, container.files) == (42, "198.18.1.3", (Path("/volume"),))
    words = asked()
    assert [each.split()[0] for each in words] == [*order, "inspect"]
    assert "update --memory 1073741824 --memory-swap 1073741824 worker" in words
