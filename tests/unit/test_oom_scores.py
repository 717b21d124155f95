"""Whom the kernel would kill first: production's scores, and what of them a machine permits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.oom_scores import (
    burstable_score,
    lowest_score,
    plan_scores,
    production_scores,
    score_of,
    scores_by_comm,
)
from framework.spec import Ballast, BallastKind, OomPolicy, RealNodeSpec
from framework.units import GIB, MIB

KINDS: tuple[BallastKind, ...] = ("system", "guaranteed", "burstable", "besteffort")


def a_node(policy: OomPolicy = "production") -> RealNodeSpec:
    ballast = tuple(Ballast(name=kind, kind=kind, memory_bytes=200 * MIB) for kind in KINDS)
    return RealNodeSpec(memory_bytes=2 * GIB, kube_proxy="1.35.0", ballast=ballast, oom_policy=policy)


class TestProduction:
    def test_the_daemons_go_last_and_besteffort_first(self) -> None:
        assert production_scores(a_node()) == {
            "kubelet": -999,
            "containerd": -999,
            "kube-proxy": -999,
            "system": 0,
            "guaranteed": -997,
            "burstable": 952,
            "besteffort": 1000,
        }

    @pytest.mark.parametrize(
        ("request_mib", "score"), [(0, 999), (1, 999), (512, 750), (1024, 500), (2046, 3), (2048, 3)]
    )
    def test_a_burstable_pod_is_safer_the_more_it_requests(self, request_mib: int, score: int) -> None:
        """As GetContainerOOMScoreAdjust has it, on a node of 2 GiB."""
        assert burstable_score(request_mib * MIB, 2 * GIB) == score

    def test_nft_has_what_kube_proxy_has(self) -> None:
        by_comm = scores_by_comm({"kubelet": -999, "containerd": -999, "kube-proxy": -500})
        assert (by_comm["nft"], by_comm["containerd-shim"]) == (-500, -998)

    @pytest.mark.parametrize(
        ("comm", "score"), [("nft", -999), ("002-containerd-", -998), ("001-nothing", 0), ("python3", 0)]
    )
    def test_a_shim_is_known_by_its_copys_name(self, comm: str, score: int) -> None:
        by_comm = scores_by_comm(dict.fromkeys(("kubelet", "containerd", "kube-proxy"), -999))
        assert score_of(comm, by_comm) == score


class TestPlan:
    def test_where_all_is_permitted_nothing_is_shifted(self) -> None:
        plan = plan_scores(a_node(), lowest=-1000)
        assert (plan.policy, plan.shift, plan.capped) == ("production", 0, ())
        assert plan.applied == plan.asked == production_scores(a_node())

    def test_without_the_privilege_all_move_up_and_some_meet_the_cap(self) -> None:
        plan = plan_scores(a_node(), lowest=0)
        assert plan.shift == 999
        assert plan.applied == {
            "kubelet": 0,
            "containerd": 0,
            "kube-proxy": 0,
            "system": 999,
            "guaranteed": 2,
            "burstable": 1000,
            "besteffort": 1000,
        }
        assert plan.capped == ("burstable", "besteffort")

    def test_pods_have_kubelets_scores_and_none_below_containerds(self) -> None:
        plan = plan_scores(a_node().settled(pods_run=True), lowest=0)
        assert {name: plan.applied[name] for name in ("guaranteed", "burstable", "besteffort")} == {
            "guaranteed": 0,
            "burstable": 952,
            "besteffort": 1000,
        }
        assert plan.applied["system"] == 999
        assert set(plan.capped) == {"guaranteed", "burstable", "besteffort"}

    def test_flat_is_the_same_for_all(self) -> None:
        plan = plan_scores(a_node("flat"), lowest=7)
        assert set(plan.asked.values()) == {0}
        assert set(plan.applied.values()) == {7}
        assert plan.capped == ()

    def test_explicit_scores_stand_among_productions(self) -> None:
        plan = plan_scores(a_node({"kubelet": -500}), lowest=0)
        assert (plan.policy, plan.asked["kubelet"], plan.applied["kubelet"]) == ("explicit", -500, 499)
        assert plan.asked["kube-proxy"] == -999

    @given(
        st.integers(-1000, 1000), st.dictionaries(st.sampled_from(KINDS), st.integers(-999, 1000), min_size=1)
    )
    def test_the_order_survives_but_for_what_met_the_cap(self, lowest: int, asked: dict[str, int]) -> None:
        plan = plan_scores(a_node(asked), lowest=lowest)
        assert all(max(lowest, -999) <= score <= 1000 for score in plan.applied.values())
        free = [name for name in plan.asked if name not in plan.capped]
        for one in free:
            for other in free:
                distance = plan.asked[one] - plan.asked[other]
                assert plan.applied[one] - plan.applied[other] == distance


class TestPrivilege:
    @pytest.mark.parametrize(
        ("capabilities", "lowest"), [("000001ffffffffff", -1000), ("0000000000000000", 12)]
    )
    def test_follows_from_cap_sys_resource(self, tmp_path: Path, capabilities: str, lowest: int) -> None:
        (tmp_path / "status").write_text(f"Name:\tx\nCapEff:\t{capabilities}\nCapBnd:\t0\n")
        (tmp_path / "oom_score_adj").write_text("12\n")
        assert lowest_score(tmp_path) == lowest
