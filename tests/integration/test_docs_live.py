"""The examples of the documentation, run as they stand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from framework import load_run

if TYPE_CHECKING:
    from tests.integration.conftest import Story

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
OPTIONS = ("--max-nodes=500", "--endpoint-mode=endpointslices", "--kube-proxy=1.37.2")


@pytest.mark.parametrize(
    ("page", "measurements"), [("README.md", 1), ("docs/writing-scenarios.md", 2)], ids=["readme", "guide"]
)
def test_examples_pass(tell: Callable[..., Story], page: str, measurements: int) -> None:
    (example,) = BLOCK.findall((ROOT / page).read_text())
    story = tell(example, *OPTIONS)
    assert story.end() == pytest.ExitCode.OK, story.output
    results = load_run(story.latest)
    assert [result.verdict and result.verdict.result for result in results] == ["pass"] * measurements
