"""What the package promises agrees with what is tested, and what is beside its code goes with it."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())
GUIDE = (PROJECT / "CONTRIBUTING.md").read_text()


@pytest.fixture(scope="module")
def tox() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(PROJECT / "tox.ini")
    return parser


def test_every_python_that_is_promised_is_tested(tox: configparser.ConfigParser) -> None:
    prefix = "Programming Language :: Python :: "
    promised = [each for each in PYPROJECT["project"]["classifiers"] if each.startswith(prefix)]
    names = [each.removeprefix(prefix).replace(".", "") for each in promised]
    assert [name.removeprefix("testenv:py") for name in tox.sections() if ":py" in name] == names
    lowest = PYPROJECT["project"]["requires-python"].removeprefix(">=").replace(".", "")
    assert names[0] == lowest
    assert tox["testenv:lowest"]["base_python"] == f"py{lowest}"


def test_every_dependency_has_a_lower_bound() -> None:
    assert [each for each in PYPROJECT["project"]["dependencies"] if not re.search(r">=\d", each)] == []


@pytest.mark.parametrize("package", ["framework", "kwok"])
def test_whatever_is_beside_the_code_goes_with_the_package(package: str) -> None:
    folder = PROJECT / package
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"][package]
    going = {path for pattern in patterns for path in folder.glob(pattern)}
    there = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert there
    assert there == going


def test_the_changelog_tells_of_this_version() -> None:
    version = PYPROJECT["project"]["version"]
    headings = re.findall(r"^## \[(.+)\] - (?:unreleased|\d{4}-\d{2}-\d{2})$", _changelog(), re.MULTILINE)
    assert headings[0] == version


def test_the_changelog_has_no_other_kinds_of_change() -> None:
    kinds = re.findall(r"^### (.+)$", _changelog(), re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def _changelog() -> str:
    return (PROJECT / "CHANGELOG.md").read_text()


def test_the_guide_names_targets_environments_and_files_that_exist(tox: configparser.ConfigParser) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    made = {
        name
        for line in re.findall(r"(?:^    |`)make ([a-z -]+?)(?:  |`)", GUIDE, re.M)
        for name in line.split()
    }
    assert made >= {"lint", "lowest"}
    assert made <= targets
    environments = re.findall(r"tox run -e ([a-z0-9]+)", GUIDE)
    assert environments
    assert [each for each in environments if f"testenv:{each}" not in tox] == []
    named = re.findall(r"`((?:framework|scenarios|tests)/[\w./-]*|\.ci/run)`", GUIDE)
    assert [path for path in named if not (PROJECT / path).exists()] == []
