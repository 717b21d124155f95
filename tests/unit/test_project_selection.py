"""``pytest -k scenario`` is the way in: it selects the scenarios, all of them and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from framework.process import run

PROJECT = Path(__file__).parents[2]
WORD = "scenario"
COLLECT_TIMEOUT_S = 120.0


def collect(*arguments: str) -> list[str]:
    """Node ids, in the order of the run."""
    completed = run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=PROJECT,
        timeout_s=COLLECT_TIMEOUT_S,
        check=False,
    )
    assert completed.exit_code == 0, completed.text
    return [line for line in completed.text.splitlines() if "::" in line]


@pytest.fixture(scope="module")
def scenarios() -> list[str]:
    return collect("scenarios")


@pytest.fixture(scope="module")
def selected() -> list[str]:
    return collect("-k", WORD)


def test_no_other_test_carries_the_word(selected: list[str]) -> None:
    assert [test_id for test_id in selected if not test_id.startswith("scenarios/")] == []


def test_the_word_selects_all_that_their_folder_holds(selected: list[str], scenarios: list[str]) -> None:
    assert scenarios
    assert [test_id for test_id in selected if test_id.startswith("scenarios/")] == scenarios


def test_every_file_of_their_folder_has_a_test(scenarios: list[str]) -> None:
    files = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "scenarios").glob("test_*.py")}
    assert {test_id.partition("::")[0] for test_id in scenarios} == files
