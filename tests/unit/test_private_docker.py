"""A private docker engine: what dockerd is told, and what is said where it can't be had."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from framework import cli, private_docker
from framework.containers import DOCKER_HOST_ENV, PROVIDER_ENV, Engine
from framework.errors import KilonodeError, MissingRequirementError
from framework.ledger import STATE_ENV, all_runs, private_socket
from framework.private_docker import (
    PROGRAMS,
    configuration,
    missing_packages,
    runtime_script,
    start_private_docker,
    usage,
)

ANSWERS = "echo 20.10.24"
SILENT = "echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock.' >&2; exit 1"
FORBIDDEN = "echo 'Got permission denied while trying to connect' >&2; exit 1"
APT_GET = """\
case "$*" in *" docker.io"*) for program in dockerd docker runc iptables; do
  printf '#!/bin/sh\\necho 20.10.24\\n' > "${0%/*}/$program" && /bin/chmod +x "${0%/*}/$program"
done ;; esac
"""


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="kn-") as folder:
        monkeypatch.setenv(STATE_ENV, folder)
        yield Path(folder)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """``program(name, script)`` puts a program on a PATH that has nothing else; nobody chose an engine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for variable in (PROVIDER_ENV, DOCKER_HOST_ENV):
        monkeypatch.delenv(variable, raising=False)

    def write(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return write


@pytest.fixture
def kilonode_docker(monkeypatch: pytest.MonkeyPatch, state: Path) -> Callable[[], int]:
    """Run ``kilonode docker``; gives the exit status."""

    def start() -> int:
        monkeypatch.setattr(sys, "argv", ["kilonode", "docker"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return start


def as_user(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


class TestConfiguration:
    FOLDER = Path("/state/runs/123456")
    SOCKET = Path("/state/docker.sock")

    def told(self, runtime: Path | None) -> dict[str, object]:
        return configuration(
            socket=self.SOCKET,
            data_root=Path("/cache/docker"),
            folder=self.FOLDER,
            cgroup_parent="/kilonode-123456/containers",
            runtime=runtime,
        )

    def test_nothing_of_the_hosts_network_is_touched(self) -> None:
        told = self.told(None)
        assert [told[key] for key in ("iptables", "ip6tables", "ip-forward", "ip-masq")] == [False] * 4
        assert told["bridge"] == "none"
        assert told["hosts"] == ["unix:///state/docker.sock"]

    def test_everything_but_images_is_in_the_state_of_its_run(self) -> None:
        told = self.told(None)
        assert told["data-root"] == "/cache/docker"
        for key in ("exec-root", "pidfile"):
            assert Path(str(told[key])).is_relative_to(self.FOLDER)

    def test_another_runtime_stands_in_only_where_it_must(self) -> None:
        assert "default-runtime" not in self.told(None)
        told = self.told(self.FOLDER / "runc")
        assert told["runtimes"] == {told["default-runtime"]: {"path": "/state/runs/123456/runc"}}

    def test_its_sockets_have_short_enough_paths(self) -> None:
        longest = f"{self.told(None)['exec-root']}/containerd/containerd.sock.ttrpc".removeprefix("/state/")
        assert len(longest) <= len("runs/123456/nodes/real-99/containerd/c.sock.ttrpc")


def test_the_runtime_is_this_python_without_anything_of_the_user(tmp_path: Path) -> None:
    words = runtime_script("/usr/sbin/runc").splitlines()[1].split()
    assert words[:4] == ["exec", sys.executable, "-I", "-S"]
    assert Path(words[4]).name == "oci_runtime.py"
    assert words[5:] == ["/usr/sbin/runc", '"$@"']


def test_how_to_use_it_is_said() -> None:
    assert "export DOCKER_HOST=unix:///s/docker.sock\n" in usage(Engine("docker", "unix:///s/docker.sock"))


class TestWhatIsMissing:
    def test_every_program_is_named_with_its_package(
        self, program: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, state: Path
    ) -> None:
        as_user(monkeypatch, 0)
        program("docker", SILENT)
        with pytest.raises(MissingRequirementError, match="missing: dockerd, runc, iptables") as caught:
            start_private_docker(state)
        assert caught.value.remedy == "apt-get install docker.io runc iptables"
        assert all_runs(state / "runs") == ()

    def test_docker_has_its_command_line_in_a_package_of_its_own_only_in_newer_debians(
        self, program: Callable[[str, str], None]
    ) -> None:
        packages = missing_packages()
        assert next(packages) == ("docker.io", "runc", "iptables")
        for name in ("dockerd", "runc", "iptables"):
            program(name, "")
        assert list(packages) == [("docker-cli",)]
        program("docker", "")
        assert list(missing_packages()) == []

    def test_root_is_needed_first(
        self, program: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, state: Path
    ) -> None:
        as_user(monkeypatch, 1000)
        with pytest.raises(MissingRequirementError, match="needs root"):
            start_private_docker(state)


class TestCommand:
    def test_where_an_engine_answers_nothing_is_started(
        self,
        kilonode_docker: Callable[[], int],
        program: Callable[[str, str], None],
        capsys: pytest.CaptureFixture[str],
        state: Path,
    ) -> None:
        program("docker", ANSWERS)
        assert kilonode_docker() == 0
        assert "docker 20.10.24 answers already; nothing was started" in capsys.readouterr().out
        assert list(state.iterdir()) == []

    @pytest.mark.parametrize("script", [SILENT, FORBIDDEN])
    def test_without_an_engine_and_without_root_it_says_what_to_do(
        self,
        kilonode_docker: Callable[[], int],
        program: Callable[[str, str], None],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        script: str,
    ) -> None:
        as_user(monkeypatch, 1000)
        program("docker", script)
        assert kilonode_docker() == cli.EXIT_MISSING
        assert "run `kilonode docker` as root" in capsys.readouterr().err

    def test_an_engine_that_came_with_the_package_is_used(
        self,
        kilonode_docker: Callable[[], int],
        program: Callable[[str, str], None],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        state: Path,
    ) -> None:
        as_user(monkeypatch, 0)
        program("apt-get", APT_GET)
        assert kilonode_docker() == 0
        said = capsys.readouterr().out
        assert "installing docker.io, runc, iptables with apt-get" in said
        assert "docker 20.10.24 answers already; nothing was started" in said
        assert all_runs(state / "runs") == ()

    def test_a_dockerd_that_ends_at_once_is_shown_with_its_log_and_leaves_nothing(
        self, monkeypatch: pytest.MonkeyPatch, state: Path, tmp_path: Path
    ) -> None:
        if os.geteuid() != 0:
            pytest.skip("it needs a cgroup; remedy: run as root")
        path = tmp_path / "bin"
        path.mkdir()
        for name, script in {**dict.fromkeys(PROGRAMS, "exit 1"), "dockerd": "echo no overlay2 here"}.items():
            (path / name).write_text(f"#!/bin/sh\n{script}\n")
            (path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")
        with pytest.raises(KilonodeError, match="dockerd ended: no overlay2 here"):
            start_private_docker(state, tmp_path / "docker")
        assert all_runs(state / "runs") == ()
        assert not private_socket(state).exists()


def test_images_are_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KILONODE_CACHE_DIR", str(tmp_path))
    assert private_docker.data_folder() == tmp_path / "docker"
