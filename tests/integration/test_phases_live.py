"""The phases of a Service's life on a real node, each with records and peaks of its own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from framework import load_run, timeline
from framework.fleet.nodes import ZONES
from framework.outcome import Evidence, Outcome, RunResult

if TYPE_CHECKING:
    from tests.integration.conftest import Story

ENDPOINTS = 300
ENDPOINTS_OF_ALL_ZONES = 32
TIMEOUT_S = 300.0
STORY = f"""
from framework import Expectation, MIB, Ballast, Watch

def test_it(real_node, daemonset_service):
    service = daemonset_service(endpoints={ENDPOINTS}, mode="endpointslices")
    agent = Ballast(name="agent", kind="system", memory_bytes=20 * MIB)
    node = real_node(memory="900MiB", kube_proxy="1.35.0", ballast=[agent], restart="production")
    good = Expectation(programming="programmed", ready_throughout=True)
    node.program(service).expect(good)
    node.change_endpoints(service, 1).expect(good)
    node.roll_endpoints(service, per_s=5, for_s=3).expect(good)
    node.restart_kube_proxy(service).expect(good)
    node.resync(service).expect(good)
    node.cold_start(service).expect(good)
    node._host.daemons["kubelet"].popen.terminate()
    node.change_endpoints(service, 3, Watch(until_s=14)).expect(good)
    node.delete(service).expect(good)
    near = daemonset_service(
        endpoints={ENDPOINTS_OF_ALL_ZONES}, mode="endpointslices", traffic_distribution="PreferSameZone"
    )
    node.move_to_zone("zone-3")
    node.program(near).expect(good)
"""
NO_LISTING = f"""
from framework import Expectation, measurement
from framework.errors import TimeLimitError

def test_it(real_node, daemonset_service, monkeypatch):
    def late(**_):
        raise TimeLimitError("the listing did not end in time", remedy="wait")

    monkeypatch.setattr(measurement, "read_ruleset", late)
    node = real_node(memory="900MiB", kube_proxy="1.35.0")
    service = daemonset_service(endpoints={ENDPOINTS}, mode="endpointslices")
    node.program(service).expect(Expectation(programming="programmed"))
"""
PHASES = (
    "first_programming",
    "endpoints_changed",
    "rolling_replacement",
    "kube_proxy_restart",
    "full_resync",
    "cold_start",
    "endpoints_changed",
    "service_deleted",
    "first_programming",
)


@pytest.fixture(scope="module")
def measured() -> dict[int, RunResult]:
    return {}


def outcome(result: RunResult) -> Outcome:
    assert result.outcome is not None
    return result.outcome


def evidence(result: RunResult) -> Evidence:
    assert result.evidence is not None
    return result.evidence


def test_each_phase_is_a_measurement(tell: Callable[..., Story], measured: dict[int, RunResult]) -> None:
    story = tell(STORY)
    assert story.end(TIMEOUT_S) == pytest.ExitCode.OK, story.output
    assert "Phases of 300 endpoints, kube-proxy 1.35.0" in story.output
    measured.update(
        enumerate(sorted(load_run(story.latest), key=lambda r: evidence(r).workload_applied_at_s))
    )
    assert tuple(outcome(result).phase for result in measured.values()) == PHASES


def test_clients_were_served_through_all_but_the_cold_start_and_the_end(
    measured: dict[int, RunResult],
) -> None:
    served = [outcome(result).served for result in measured.values()]
    assert served == ["fully"] * 7 + ["not", "fully"]
    cold = outcome(measured[5]).traffic_during
    assert cold is not None
    assert cold.success is not None
    assert cold.success < 0.3


def test_records_belong_to_their_phase(measured: dict[int, RunResult]) -> None:
    results = list(measured.values())
    for earlier, later in pairwise(results):
        assert evidence(later).begun_at_s >= evidence(earlier).ended_at_s - 1
        assert min(record.at_s for record in evidence(later).exits) >= evidence(later).begun_at_s
    peaks = [peak for result in results if (peak := outcome(result).charged_bytes_peak) is not None]
    cgroup = evidence(results[0]).cgroup
    assert cgroup is not None
    assert {peak.source for peak in peaks} == {"cgroup_counter"} or cgroup.mode == "v2"
    assert len({peak.value for peak in peaks}) > 1


def test_one_changed_endpoint_writes_the_whole_service_again(measured: dict[int, RunResult]) -> None:
    first, change = outcome(measured[0]), outcome(measured[1])
    assert first.nft_bytes_peak is not None
    assert change.nft_bytes_peak is not None
    assert change.nft_bytes_peak.value > 0.8 * first.nft_bytes_peak.value
    assert change.sync_full is False
    assert outcome(measured[4]).sync_full is True


def test_what_was_replaced_is_gone_and_what_was_deleted_leaves_the_kernel(
    measured: dict[int, RunResult],
) -> None:
    assert len(evidence(measured[1]).addresses_gone) == 1
    assert 1 < len(evidence(measured[2]).addresses_gone) <= 16
    deleted = measured[7]
    assert evidence(deleted).ruleset is not None
    assert outcome(deleted).endpoints == 0
    left = outcome(deleted).kernel_bytes_left
    assert left is not None
    assert left < 8 << 20


def test_a_node_that_moved_has_the_endpoints_of_its_zone(measured: dict[int, RunResult]) -> None:
    ruleset = evidence(measured[8]).ruleset
    assert ruleset is not None
    assert ruleset.endpoints == ENDPOINTS_OF_ALL_ZONES / ZONES


def test_a_kubelet_that_ended_is_back_as_its_unit_would_have_it(measured: dict[int, RunResult]) -> None:
    (loop,) = outcome(measured[6]).crash_loops
    assert (loop.name, loop.ends) == ("kubelet", 1)
    assert 9 < loop.down_s < 13
    words = [event.what for event in timeline(evidence(measured[6]))]
    assert "kubelet started again after 10 s" in words


def test_a_listing_that_never_ends_leaves_it_unknown_and_the_measurement_whole(
    tell: Callable[..., Story],
) -> None:
    story = tell(NO_LISTING)
    assert story.end(TIMEOUT_S) == pytest.ExitCode.TESTS_FAILED, story.output
    assert "there is no listing of the ruleset to confirm it" in story.output
    assert "unknown" in story.output
