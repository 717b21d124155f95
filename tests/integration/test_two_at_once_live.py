"""Two runs on one machine: each completes, with the figures that it has alone.

Clusters have namespaces, addresses, cgroups and state of their own; what they share is kernel and CPUs. nft's
memory does not depend on these. kube-proxy's does: its garbage collector has less of two CPUs, its heap grows
by 20% (57 MiB instead of 46 to 49, on 28 November 2026), and with it the node's peak by 3%. Each result says
that another run was there. kind beside the embedded control plane is in ``test_kind_live``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest

from framework import RunResult, load_run

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
OUTSIDE_MAX = {"nft_bytes_peak": 0.02, "charged_bytes_peak": 0.06}
"""How far beyond what a figure is alone, in three repetitions, it may be beside another run."""


def results_of(story: Story) -> list[RunResult]:
    assert story.end() == pytest.ExitCode.OK, story.output
    return list(load_run(story.latest))


def values(found: Sequence[RunResult], figure: str) -> list[int]:
    return [getattr(result.outcome, figure).value for result in found]


@pytest.mark.usefixtures("cluster")
def test_two_runs_have_the_figures_of_one(
    tell: Callable[..., Story], machine_now: Callable[[], Machine]
) -> None:
    before = machine_now()
    alone = results_of(tell(MEASURES.format(repetitions=3), *OPTIONS, name="alone"))
    at_once = [tell(MEASURES.format(repetitions=1), *OPTIONS, name=name) for name in ("first", "second")]
    beside = [result for story in at_once for result in results_of(story)]
    assert (len(alone), len(beside)) == (3, 2)
    for figure, outside in OUTSIDE_MAX.items():
        usual, found = values(alone, figure), values(beside, figure)
        assert min(found) >= (1 - outside) * min(usual), (figure, usual, found)
        assert max(found) <= (1 + outside) * max(usual), (figure, usual, found)
    for result in beside:
        assert "other-runs" in {item.id for item in result.fidelity}
    assert machine_now().beyond(before) == {}
