"""The package as users get it: a wheel, installed with its dependencies where there is no checkout."""

from __future__ import annotations

import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from framework import load_run
from framework.process import Completed, run

PROJECT = Path(__file__).parents[2]
PACKAGES = ("framework", "kwok")
NO_SOURCES = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "history", "nightly"
)
BUILD_TIMEOUT_S = 300.0
INSTALL_TIMEOUT_S = 900.0
MEASURE_TIMEOUT_S = 300.0
MINE = """
from framework import MIB, Expectation

def test_my_node_survives_my_service(fleet, real_node, daemonset_service):
    fleet.grow_to(30)
    service = daemonset_service(endpoints=30)
    node = real_node(memory="1GiB", kube_proxy="1.37.2")
    measurement = node.program(service)
    measurement.expect(
        Expectation(programming="programmed", nft_bytes_below=20 * MIB, ready_throughout=True)
    )
"""
WHERE_IT_IS = "import sys, framework, kwok; print(framework.__file__, kwok.__file__, *sys.path, sep='\\n')"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of a copy of the whole project, because setuptools leaves folders beside the sources."""
    place = tmp_path_factory.mktemp("wheel")
    shutil.copytree(PROJECT, place / "project", ignore=NO_SOURCES)
    pip_wheel = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir")
    run([*pip_wheel, place, place / "project"], timeout_s=BUILD_TIMEOUT_S)
    (made,) = place.glob("*.whl")
    return made


class Installed:
    """A virtual environment that holds the wheel and what it depends on."""

    def __init__(self, place: Path, wheel: Path) -> None:
        self.place = place
        run([sys.executable, "-m", "venv", place], timeout_s=INSTALL_TIMEOUT_S)
        self.run("python", "-m", "pip", "install", "--quiet", wheel, cwd=place, timeout_s=INSTALL_TIMEOUT_S)

    def run(self, program: str, *arguments: str | Path, cwd: Path, timeout_s: float = 60.0) -> Completed:
        """One of its programs, which knows nothing of the checkout."""
        return run(
            [self.place / "bin" / program, *arguments], cwd=cwd, env={"PYTHONPATH": ""}, timeout_s=timeout_s
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    return Installed(tmp_path_factory.mktemp("venv"), wheel)


def test_the_wheel_holds_both_packages_with_their_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {
        path.relative_to(PROJECT).as_posix()
        for package in PACKAGES
        for path in (PROJECT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"framework/py.typed", "framework/binaries/pins.yaml", "kwok/kwok.yaml"} < sources
    assert held == sources


def test_a_test_of_ones_own_measures_where_there_is_no_checkout(
    installed: Installed, tmp_path: Path, live_state: Path
) -> None:
    places = [
        Path(line) for line in installed.run("python", "-c", WHERE_IT_IS, cwd=tmp_path).text.splitlines()
    ]
    assert places[0].is_relative_to(installed.place)
    assert places[1].is_relative_to(installed.place)
    assert [place for place in places if place.is_relative_to(PROJECT)] == []

    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert installed.run("kilonode", "--version", cwd=tmp_path).text == f"kilonode {version}\n"

    (tmp_path / "test_mine.py").write_text(MINE)
    session = installed.run(
        "pytest", "test_mine.py", "--max-nodes=100", cwd=tmp_path, timeout_s=MEASURE_TIMEOUT_S
    )
    assert "1 passed" in session.text
    run_folder = (tmp_path / "runs" / "latest").resolve()
    (result,) = load_run(run_folder)
    assert result.verdict is not None
    assert (result.stage, result.verdict.result) == ("checked", "pass")
    assert (run_folder / "report.html").is_file()
    shown = installed.run("kilonode", "show", cwd=tmp_path).text.replace("\n", "")
    assert "1.37.2" in shown
    assert run_folder.name in shown
