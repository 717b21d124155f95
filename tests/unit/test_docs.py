"""What the documentation names exists: options, commands, make targets, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from framework.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)


COMMAND = re.compile(r"(?:^    |`|/bin/)kilonode ([a-z][a-z-]*)([^`\n]*)", re.M)


def test_every_command_exists_and_has_these_options() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    text = TEXT + (ROOT / ".github/workflows/nightly.yml").read_text()
    named = COMMAND.findall(text)
    assert {name for name, _ in named} >= {"binaries", "limit", "forecast", "compare", "bundle", "nightly"}
    for name, words in named:
        assert name in commands, name
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--[a-z][a-z-]*", words.partition("#")[0])) <= known, (name, words)


def test_every_pytest_option_exists(pytestconfig: pytest.Config) -> None:
    table = (ROOT / "docs/writing-scenarios.md").read_text()
    named = set(re.findall(r"^\| `(--[a-z-]+)", table, re.M))
    assert named >= {"--max-nodes", "--keep"}
    for option in named:
        assert pytestconfig.getoption(option, default="absent") != "absent", option


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)", TEXT, re.M))
    assert named >= {"scenario", "test"}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=range(len(PAGES)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_module_of_the_house_exists() -> None:
    house = (ROOT / "docs/architecture.md").read_text().split("## The house")[1].split("Imports point")[0]
    modules = re.findall(r"([a-z_]+\.py|[a-z]+/)", house)
    assert "measurement.py" in modules
    for name in set(modules) - {"unit/", "integration/"}:
        inside = ROOT / "framework" / name
        assert inside.exists() or (ROOT / name).exists(), name
