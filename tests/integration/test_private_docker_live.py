"""A private docker engine on the real machine: what it starts, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from framework import docker_data
from framework.binaries.pins import architecture
from framework.cgroup import memory_cgroup
from framework.containers import DOCKER_HOST_ENV, Engine, find_engine
from framework.errors import MissingRequirementError
from framework.ledger import File, OtherRun, all_runs, end_run, mounts_below, private_socket
from framework.private_docker import require_programs, start_private_docker
from framework.process import run
from framework.realnode.image import IMAGE, image_archive, image_files
from framework.wait import wait_until

Start = Callable[[], Engine]
NETWORK = "kilonode-test"


def engine_run(state: Path) -> OtherRun | None:
    socket = File(str(private_socket(state)))
    return next((found for found in all_runs(state / "runs") if socket in found.things()), None)


@pytest.fixture
def start(live_state: Path, tmp_path: Path) -> Iterator[Start]:
    """Start an engine with images of its own; it is removed at the test's end."""
    try:
        require_programs()
    except MissingRequirementError as error:
        pytest.skip(str(error))
    yield lambda: start_private_docker(live_state, tmp_path / "docker")
    left = engine_run(live_state)
    assert left is None or end_run(left) == ()


@pytest.fixture
def container(start: Start) -> tuple[Engine, str]:
    """An engine, and the bridge of a privileged container that would be started again by another engine."""
    engine = start()
    engine.run("load", stdin=image_archive(image_files(), (), architecture()))
    network_id = engine.run("network", "create", NETWORK)
    options = ("--detach", "--privileged", "--restart=always", "--network", NETWORK, "--name", "held")
    engine.run("run", *options, "--publish=127.0.0.1::80", "--volume=/data", IMAGE)
    return engine, f"br-{network_id[:12]}"


def links() -> set[str]:
    return {line.split(": ")[1] for line in run(["ip", "-oneline", "link"]).text.splitlines()}


def rules() -> str:
    return run(["nft", "list", "ruleset"]).text


def test_a_container_runs_and_the_host_is_as_before(
    start: Start, live_state: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before = (rules(), Path("/proc/sys/net/ipv4/ip_forward").read_text())
    engine, bridge = request.getfixturevalue("container")
    socket = private_socket(live_state)
    assert find_engine(socket, {DOCKER_HOST_ENV: engine.host}) == engine
    assert socket.stat().st_mode & 0o777 == 0o600
    assert bridge in links()
    assert (rules(), Path("/proc/sys/net/ipv4/ip_forward").read_text()) == before
    mounts = Path("/proc/mounts").read_text()
    assert mounts_below(str(tmp_path), mounts) == ()
    found = engine_run(live_state)
    assert found is not None
    assert mounts_below(str(found.folder), mounts) == ()
    cgroup = memory_cgroup(f"kilonode-{found.run_id}")
    held = engine.inspect("held")
    assert held.pid in cgroup.pids()

    assert end_run(found) == ()
    assert not cgroup.path.exists()
    wait_until(
        lambda: not Path(f"/proc/{held.pid}").exists() or None, what="the container's end", timeout_s=10
    )
    assert not found.folder.exists()
    assert not socket.exists()
    assert bridge not in links()
    assert docker_data.containers_files(tmp_path / "docker") == ()


def test_after_sigkill_the_next_one_has_the_images_and_nothing_else(
    start: Start, container: tuple[Engine, str], live_state: Path
) -> None:
    _, bridge = container
    killed = engine_run(live_state)
    assert killed is not None
    os.kill(int((killed.folder / "dockerd.pid").read_text()), signal.SIGKILL)
    engine = start()
    assert engine.has_image(IMAGE)
    assert engine.names() == ()
    assert engine.run("volume", "ls", "--quiet") == ""
    assert NETWORK not in engine.run("network", "ls", "--format", "{{.Name}}")
    assert bridge not in links()
    assert not killed.folder.exists()
    assert not memory_cgroup(f"kilonode-{killed.run_id}").path.exists()
