"""Two runs on one machine: each completes, with the figures that it has alone.

Clusters have namespaces, addresses, cgroups and state of their own; what they share is kernel and CPUs, so
times differ and memory does not. A run's own repetitions differ too (the charged peak of this node by 2%, nft
by less than 1%), so a figure beside another run may be 2% outside of what it is alone. kind beside the
embedded control plane is in ``test_kind_live``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest

from framework import Outcome, load_run

if TYPE_CHECKING:
    from tests.integration.conftest import Machine, Story

MEASURES = """
import pytest
from framework import Expectation

@pytest.mark.parametrize("repetition", range({repetitions}))
def test_story(fleet, real_node, daemonset_service, repetition):
    fleet.grow_to(100)
    service = daemonset_service(endpoints=10_000)
    node = real_node(memory="2GiB", kube_proxy="1.35.0")
    node.program(service).expect(Expectation(programming="programmed", ready_throughout=True))
"""
OPTIONS = ("--max-nodes=1k", "--endpoint-mode=endpointslices")
OUTSIDE_MAX = 0.02
FIGURES = ("nft_bytes_peak", "charged_bytes_peak")


def outcomes(story: Story) -> list[Outcome]:
    assert story.end() == pytest.ExitCode.OK, story.output
    return [result.outcome for result in load_run(story.latest) if result.outcome is not None]


def values(found: Sequence[Outcome], figure: str) -> list[int]:
    return [getattr(outcome, figure).value for outcome in found]


def test_two_runs_have_the_figures_of_one(
    tell: Callable[..., Story], machine_now: Callable[[], Machine]
) -> None:
    before = machine_now()
    alone = outcomes(tell(MEASURES.format(repetitions=3), *OPTIONS, name="alone"))
    at_once = [tell(MEASURES.format(repetitions=1), *OPTIONS, name=name) for name in ("first", "second")]
    beside = [outcome for story in at_once for outcome in outcomes(story)]
    assert (len(alone), len(beside)) == (3, 2)
    for figure in FIGURES:
        usual, found = values(alone, figure), values(beside, figure)
        assert min(found) >= (1 - OUTSIDE_MAX) * min(usual), (figure, usual, found)
        assert max(found) <= (1 + OUTSIDE_MAX) * max(usual), (figure, usual, found)
    assert machine_now().beyond(before) == {}
