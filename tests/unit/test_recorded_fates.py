"""Fates of real nodes: evidence of runs of November 2026, their cgroup samples and small processes left out.

kube-proxy 1.35.0 and nft 1.0.6 on kernel 6.18 with cgroup v1. The small ones had 10,000 endpoints (and two
ports where a limit says so); the ones named 100k had 100,000, three of them at the same time under one
Service, with what else runs on an ordinary node. ``affinity-30k`` had 30,000 and session affinity.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import pytest

from framework.analysis import Expectation, derive_outcome, failure_order, judge, timeline
from framework.outcome import Evidence, Outcome

FOLDER = Path(__file__).parent / "recorded" / "evidence"


@cache
def evidence(name: str) -> Evidence:
    return msgspec.json.decode((FOLDER / f"{name}.json").read_bytes(), type=Evidence)


@cache
def outcome(name: str) -> Outcome:
    return derive_outcome(evidence(name))


@pytest.mark.parametrize(
    ("name", "fates"),
    [
        ("besteffort-dies-in-nfts-place", ["workload_killed", "programmed", "recovered"]),
        ("guaranteed-outlives-nft", ["nft_killed", "silent_outage"]),
        ("kubelet-without-its-score", ["kubelet_killed", "nft_killed", "not_ready"]),
        ("starved", ["nft_killed", "starved", "not_ready"]),
        ("endpoints-changed", ["programmed"]),
        ("100k-1600mib-text-charged", ["nft_killed", "starved", "not_ready"]),
        ("100k-1gib-of-three", ["starved", "workload_killed", "not_ready", "nft_killed"]),
        (
            "100k-2gib-of-three",
            ["starved", "not_ready", "workload_killed", "programmed_late", "recovered"],
        ),
        ("100k-4gib-of-three", ["programmed_late"]),
        ("affinity-30k", ["starved", "not_ready", "programmed_late", "recovered"]),
    ],
)
def test_in_order_of_time(name: str, fates: list[str]) -> None:
    assert [seen.fate for seen in outcome(name).fates] == fates
    assert all(seen.why for seen in outcome(name).fates)


def test_every_recording_is_tried() -> None:
    (mark,) = test_in_order_of_time.pytestmark  # type: ignore[attr-defined]
    tried = {name for name, _ in mark.args[1]}
    assert tried == {path.stem for path in FOLDER.glob("*.json")}


def test_the_weakest_failed_first() -> None:
    three = [outcome(f"100k-{size}gib-of-three") for size in (4, 2, 1)]
    order = [(failed.limit_bytes or 0) >> 30 for failed, _ in failure_order(three)]
    assert order[:2] == [1, 2]
    assert outcome("100k-4gib-of-three").victims == ()


@pytest.mark.parametrize("name", ["starved", "100k-2gib-of-three"])
def test_a_starved_node_lost_its_lease_with_every_daemon_alive(name: str) -> None:
    readiness = outcome(name).readiness
    assert readiness is not None
    assert readiness.lease_expired_at_s is not None
    assert readiness.not_ready_at_s is not None
    assert readiness.production_not_ready_at_s is not None
    assert {"kubelet", "containerd", "kube-proxy"} <= set(outcome(name).survivors)
    earliest_s, latest_s = readiness.production_not_ready_at_s
    assert earliest_s <= readiness.not_ready_at_s <= latest_s
    assert readiness.lease_expired_at_s + 10 == pytest.approx(earliest_s, abs=0.1)


def test_a_lease_that_ran_out_while_the_control_plane_stood_still_says_nothing_of_the_node() -> None:
    """One CPU of two was held by nft's transaction for minutes, and the control plane shares them."""
    assert sync_s(outcome("affinity-30k")) > 200
    judged = judge(outcome("affinity-30k"), Expectation(fates=("starved",), known_bad="a lease ran out"))
    assert judged.result == "unknown"
    assert "nobody could look at the node for 31.0 s" in " ".join(judged.reasons)
    assert judge(outcome("starved"), Expectation(fates=("starved",), known_bad="it starved")).result == "pass"


def sync_s(found: Outcome) -> float:
    assert found.sync_s is not None
    return found.sync_s


def test_the_lease_expires_before_anybody_is_killed() -> None:
    readiness = outcome("100k-2gib-of-three").readiness
    assert readiness is not None
    assert readiness.lease_expired_at_s is not None
    assert readiness.lease_expired_at_s < evidence("100k-2gib-of-three").oom_kills[0].at_s - 60


def test_nft_is_killed_again_each_half_minute() -> None:
    found = outcome("guaranteed-outlives-nft")
    assert found.victims == ("nft", "nft", "nft")
    assert found.retry_interval_s == pytest.approx(30, abs=2)
    assert "guaranteed" in found.survivors


def test_the_timeline_tells_the_story() -> None:
    words = [event.what for event in timeline(evidence("100k-2gib-of-three"))]
    lease = words.index("the node's lease expired")
    killed = next(n for n, what in enumerate(words) if "the kernel killed app" in what)
    programmed = words.index("all 100,000 endpoints programmed")
    assert lease < killed < programmed
