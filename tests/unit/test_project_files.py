"""The project's own files agree with each other, and say nothing about the machine they were written on."""

from __future__ import annotations

import configparser
import importlib
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from framework.process import run

PROJECT = Path(__file__).parents[2]
MACHINE = re.compile(
    rb"(?<![\w.~-])/(?:work|root|home/(?!alice\b|bob\b|carol\b)\w+)/[\w.]"
    rb"|(?:index-url|GOPROXY=https?:|artifactory|nexus|pypi\.(?!org)\w+\.)",
    re.IGNORECASE,
)
"""A path below somebody's home or workplace, or the name of a package mirror. Alice, Bob and Carol are
nobody."""


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def tox() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(PROJECT / "tox.ini")
    return parser


def tox_environments(tox: configparser.ConfigParser) -> set[str]:
    return {name.removeprefix("testenv:") for name in tox.sections() if name.startswith("testenv:")}


def test_scripts_and_entry_points_can_be_imported(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    module, _, function = project["scripts"]["kilonode"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert importlib.import_module(project["entry-points"]["pytest11"]["kilonode"])


def test_the_plugin_is_registered_once_under_the_name_of_its_entry_point(
    pyproject: dict[str, Any], pytestconfig: pytest.Config
) -> None:
    (name,) = pyproject["project"]["entry-points"]["pytest11"]
    plugin = pytestconfig.pluginmanager.get_plugin(name)
    assert plugin is importlib.import_module("framework.pytest_plugin")
    assert [each for each in pytestconfig.pluginmanager.get_plugins() if each is plugin] == [plugin]
    assert len(entry_points(group="pytest11", name=name)) <= 1


def test_make_starts_environments_that_tox_has(tox: configparser.ConfigParser) -> None:
    named = re.findall(r"run -e ([\w,-]+)", (PROJECT / "Makefile").read_text())
    started = {name for names in named for name in names.split(",")}
    assert started == tox_environments(tox)


def test_tox_asks_for_extras_and_groups_that_exist(
    pyproject: dict[str, Any], tox: configparser.ConfigParser
) -> None:
    known = {*pyproject["project"]["optional-dependencies"], *pyproject["dependency-groups"]}
    asked = {
        tox[section][key]
        for section in tox.sections()
        for key in ("extras", "dependency_groups")
        if key in tox[section]
    }
    assert asked == known


def test_make_and_the_package_ask_for_the_same_python(pyproject: dict[str, Any]) -> None:
    (minimum,) = re.findall(r"^python_min := (\S+)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert pyproject["project"]["requires-python"] == f">={minimum}"
    assert pyproject["tool"]["mypy"]["python_version"] == minimum


def test_every_step_of_ci_is_a_make_target() -> None:
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    steps = re.findall(r"^run_step make (\w+)$", (PROJECT / ".ci" / "run").read_text(), re.MULTILINE)
    assert steps == ["lint", "typecheck", "test"]
    assert set(steps) <= targets


def test_no_committed_file_names_a_machine_path_or_a_package_mirror() -> None:
    if not (PROJECT / ".git").exists():
        pytest.skip("this is no git checkout; remedy: clone the repository")
    listed = run(["git", "ls-files", "-z"], cwd=PROJECT).text.split("\0")
    texts = ((name, (PROJECT / name).read_bytes()) for name in listed if (PROJECT / name).is_file())
    found = [
        f"{name}: {match.group().decode()}"
        for name, text in texts
        if (PROJECT / name) != Path(__file__)
        for match in MACHINE.finditer(text)
    ]
    assert found == []


def test_the_typed_client_lists_nothing_that_grows_with_the_fleet() -> None:
    """Decoding 100,000 objects with it takes minutes; big lists go through ``Bulk``."""
    found = [
        f"{path.name}: {call}"
        for path in (PROJECT / "framework").rglob("*.py")
        for call in re.findall(r"\.list_\w+\([^)]*\)", path.read_text())
        if 'field_selector=f"metadata.name=' not in call and 'field_selector=f"spec.nodeName=' not in call
    ]
    assert found == []
