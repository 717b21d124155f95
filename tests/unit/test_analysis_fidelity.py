"""Deviations from production, and what they make unknowable."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest
from test_analysis_outcomes import (
    a_candidate,
    a_killed_evidence,
    a_look,
    an_evidence,
    an_oom_kill,
    an_outcome,
)

from framework.analysis import Expectation, RunFacts, deviations, judge, refusals
from framework.outcome import Component, OomScores
from framework.spec import Ballast
from framework.units import GIB, MIB

DAEMONS = {"kubelet": -999, "containerd": -999, "kube-proxy": -999}
BALLAST = Ballast(name="ballast", kind="guaranteed", memory_bytes=500 * MIB)


def scores(policy: Literal["production", "flat", "explicit"] = "production", **changes: Any) -> OomScores:
    """Exact ones; ``shift`` and ``asked`` change them."""
    given = OomScores(policy=policy, asked=DAEMONS, applied=DAEMONS, shift=0, capped=())
    return msgspec.structs.replace(given, **changes)


SHIFTED = scores(shift=999, asked={**DAEMONS, "ballast": 0}, capped=())
PRODUCTION = RunFacts(
    cgroup_mode="v2",
    oom_scores=scores(),
    node_memory_bytes=2 * GIB,
    memory_bytes_seen_by_kubelet=2 * GIB,
    node_monitor_grace_period_s=50,
    fake_lease_duration_s=40,
    endpoint_mode="native",
    daemonset_off_real_nodes=False,
    pods_on_real_node=True,
    node_credentials=True,
    shares_host_kernel=False,
    host_cpus=2,
    apiserver="1.37.0",
    kube_proxy="1.37.2",
)
REBUILT = Component(
    name="kube-proxy", version="1.35.0", source="go build", toolchain="go1.26.1", sha256="0" * 64
)


def facts(**changes: Any) -> RunFacts:
    return msgspec.structs.replace(PRODUCTION, **changes)


class TestDeviations:
    def test_production_has_none(self) -> None:
        assert deviations(PRODUCTION) == ()

    @pytest.mark.parametrize(
        ("changes", "ids"),
        [
            ({"cgroup_mode": "v1"}, ["cgroup-v1"]),
            ({"memory_bytes_seen_by_kubelet": 24 * GIB}, ["no-eviction"]),
            ({"oom_scores": scores("flat", shift=3)}, ["oom-flat"]),
            ({"oom_scores": scores("explicit", shift=3)}, ["oom-explicit", "oom-score-adj"]),
            ({"oom_scores": SHIFTED}, ["oom-score-adj"]),
            ({"ballast": (BALLAST,)}, ["ballast"]),
            ({"ballast": (msgspec.structs.replace(BALLAST, form="pod"),)}, ["ballast-pods"]),
            ({"node_monitor_grace_period_s": 700}, ["node-monitor-grace-period"]),
            ({"fake_lease_duration_s": 1200}, ["fake-lease"]),
            ({"endpoint_mode": "adopted"}, ["adopted-pods"]),
            ({"node_credentials": False}, ["admin-credentials"]),
            ({"captures_transactions": True}, ["twin"]),
            ({"endpoint_mode": "endpointslices"}, ["direct-endpointslices"]),
            ({"sentinel": True}, ["sentinel"]),
            ({"daemonset_off_real_nodes": True}, ["daemonset-off-real-nodes"]),
            ({"pods_on_real_node": False}, ["no-pods"]),
            ({"rebuilt": (REBUILT,)}, ["rebuilt-binaries"]),
            ({"kube_proxy": "1.35.0"}, ["version-skew"]),
            ({"shares_host_kernel": True}, ["shared-kernel", "shared-cpus"]),
            (
                {"shares_host_kernel": True, "other_runs": 2},
                ["other-runs", "shared-kernel", "shared-cpus"],
            ),
            ({"shares_host_kernel": False, "other_runs": 2}, []),
        ],
    )
    def test_each_is_an_item(self, changes: dict[str, Any], ids: list[str]) -> None:
        items = deviations(facts(**changes))
        assert [item.id for item in items] == ids
        assert all(item.what and item.effect for item in items)

    @pytest.mark.parametrize(
        ("kube_proxy", "words"),
        [
            ("1.36.1", "1 minor older than kube-apiserver 1.37.0 (supported)"),
            ("1.34.2", "3 minors older than kube-apiserver 1.37.0 (supported)"),
            ("1.33.0", "4 minors older than kube-apiserver 1.37.0 (not supported)"),
            ("1.38.0", "1 minor newer than kube-apiserver 1.37.0 (not supported)"),
        ],
    )
    def test_skew_is_measured_against_the_policy(self, kube_proxy: str, words: str) -> None:
        (item,) = deviations(facts(kube_proxy=kube_proxy))
        assert item.what.endswith(words)


class TestVictimRefusals:
    TABLE = (a_candidate("nft", 1063, 700), a_candidate("ballast", 500, 650))

    def test_the_biggest_of_equals_would_die_with_the_true_scores_too(self) -> None:
        assert refusals(facts(oom_scores=SHIFTED), a_killed_evidence()) == ()

    def test_a_ballast_whose_score_met_the_cap_would_have_died_first(self) -> None:
        evidence = a_killed_evidence(oom_kills=(an_oom_kill(candidates=self.TABLE),))
        (refusal,) = refusals(facts(oom_scores=SHIFTED), evidence)
        assert "nft was killed, the true scores would have chosen ballast (500 MiB)" in refusal.text
        assert judge(
            an_outcome(a_killed_evidence()), Expectation(programming="nft_killed"), (refusal,)
        ).result == ("unknown")

    def test_a_ballast_may_stand_for_something_protected(self) -> None:
        evidence = a_killed_evidence(oom_kills=(an_oom_kill(candidates=self.TABLE),))
        protected = scores(shift=999, asked={**DAEMONS, "ballast": -999})
        assert refusals(facts(oom_scores=protected), evidence) == ()

    def test_under_a_flat_policy_size_decides_as_asked(self) -> None:
        evidence = a_killed_evidence(oom_kills=(an_oom_kill(candidates=self.TABLE),))
        flat = scores("flat", shift=5, asked=dict.fromkeys((*DAEMONS, "ballast"), 0))
        assert refusals(facts(oom_scores=flat), evidence) == ()

    def test_true_scores_are_trusted(self) -> None:
        evidence = a_killed_evidence(oom_kills=(an_oom_kill(candidates=self.TABLE),))
        assert refusals(facts(), evidence) == ()

    def test_a_kill_without_candidates_can_not_be_replayed(self) -> None:
        evidence = a_killed_evidence(oom_kills=(an_oom_kill(candidates=()),))
        (refusal,) = refusals(facts(oom_scores=SHIFTED), evidence)
        assert refusal.about == ("victims",)

    def test_no_kill_no_refusal(self) -> None:
        assert refusals(facts(oom_scores=SHIFTED), an_evidence()) == ()


class TestReadyRefusals:
    def test_a_patient_control_plane_hides_a_silent_node(self) -> None:
        evidence = an_evidence(status=(a_look(12), a_look(18, lease_age_s=61.0)))
        (refusal,) = refusals(facts(node_monitor_grace_period_s=700), evidence)
        assert refusal.about == ("ready",)
        assert "not renewed for 61 s" in refusal.text

    @pytest.mark.parametrize(
        ("grace_s", "ready", "lease_age_s"),
        [(50, "True", 61.0), (700, "True", 12.0), (700, "Unknown", 900.0), (700, "True", None)],
    )
    def test_otherwise_ready_means_ready(self, grace_s: float, ready: str, lease_age_s: float | None) -> None:
        evidence = an_evidence(status=(a_look(12, ready, lease_age_s),))
        assert refusals(facts(node_monitor_grace_period_s=grace_s), evidence) == ()

    def test_one_that_was_called_not_ready_in_the_end_is_no_less_so(self) -> None:
        evidence = an_evidence(status=(a_look(18, lease_age_s=61.0), a_look(19, "Unknown", 62.0)))
        assert refusals(facts(node_monitor_grace_period_s=700), evidence) == ()


class TestFleet:
    def test_fakes_that_died_make_programming_and_readiness_unknown(self) -> None:
        (refusal,) = refusals(facts(fakes_not_ready=1234, endpoint_mode="adopted"), an_evidence())
        assert str(refusal).startswith("1,234 fake nodes were NotReady at the end")
        verdict = judge(an_outcome(), Expectation(programming="programmed"), (refusal,))
        assert verdict.result == "unknown"

    def test_endpoints_without_pods_stay(self) -> None:
        dead = facts(fakes_not_ready=1234, endpoint_mode="endpointslices")
        assert refusals(dead, an_evidence()) == ()

    @pytest.mark.parametrize("count", [0, None])
    def test_none_that_is_known_of_makes_nothing_unknown(self, count: int | None) -> None:
        assert refusals(facts(fakes_not_ready=count), an_evidence()) == ()
