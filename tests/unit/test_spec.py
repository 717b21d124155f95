"""What is asked is refused before anything is created."""

from __future__ import annotations

from typing import Any

import pytest

from framework.errors import BadInputError
from framework.spec import (
    NODES_MAX,
    AskedMode,
    BallastPod,
    EndpointMode,
    RealNodeSpec,
    ServiceSpec,
    endpoint_mode,
    require_count,
    require_version,
)
from framework.units import GIB, MIB


def a_node(**changes: Any) -> RealNodeSpec:
    sound: dict[str, Any] = {"memory_bytes": 2 * GIB, "kube_proxy": "1.35.0"}
    return RealNodeSpec(**(sound | changes))


class TestRealNode:
    def test_a_sound_one(self) -> None:
        assert a_node(ballast_bytes=500 * MIB).ballast_bytes == 500 * MIB

    @pytest.mark.parametrize(
        ("changes", "where", "message"),
        [
            ({"memory_bytes": 64 * MIB - 1}, "memory", "can't start its own daemons"),
            ({"ballast_bytes": 2 * GIB}, "ballast", "does not fit a node of 2,048 MiB"),
            ({"ballast_bytes": -1}, "ballast", "does not fit"),
            ({"kube_proxy": "1.35"}, "kube_proxy", "'1.35' is no exact version"),
        ],
    )
    def test_an_unsound_one_is_refused(self, changes: dict[str, Any], where: str, message: str) -> None:
        with pytest.raises(BadInputError, match=message) as caught:
            a_node(**changes)
        assert caught.value.where == where

    def test_the_smallest_one(self) -> None:
        assert a_node(memory_bytes=64 * MIB).memory_bytes == 64 * MIB

    def test_specs_do_not_share_their_configuration(self) -> None:
        assert a_node().kube_proxy_config is not a_node().kube_proxy_config

    def test_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            a_node().memory_bytes = GIB  # type: ignore[misc]


def a_pod(**changes: Any) -> BallastPod:
    sound: dict[str, Any] = {"name": "web", "qos": "Burstable", "memory_bytes": 100 * MIB}
    return BallastPod(**(sound | changes))


class TestPods:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"name": "kubelet"}, "'kubelet' can't be the name"),
            ({"name": "Web"}, "can't be the name"),
            ({"name": "web-"}, "can't be the name"),
            ({"name": "sixteen-letters-"}, "can't be the name"),
            ({"memory_bytes": 0}, "hold or request nothing"),
            ({"request_bytes": 0}, "hold or request nothing"),
            ({"qos": "Guaranteed", "request_bytes": MIB}, "its class decides"),
        ],
    )
    def test_an_unsound_one_is_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(BadInputError, match=message) as caught:
            a_pod(**changes)
        assert caught.value.where == "pods"

    @pytest.mark.parametrize(
        ("pods", "message"),
        [
            ([{}, {}], "two pods have one name"),
            ([{"memory_bytes": 2 * GIB}], "which does not fit a node of 2,048 MiB"),
            ([{"request_bytes": 3 * GIB}], "pods request 3,072 MiB"),
        ],
    )
    def test_a_node_that_does_not_hold_them_is_refused(
        self, pods: list[dict[str, Any]], message: str
    ) -> None:
        with pytest.raises(BadInputError, match=message):
            a_node(pods=tuple(a_pod(**changes) for changes in pods))

    def test_page_cache_may_be_larger_than_the_node(self) -> None:
        pod = a_pod(qos="BestEffort", content="page_cache", memory_bytes=4 * GIB)
        assert a_node(pods=(pod,)).pods == (pod,)

    @pytest.mark.parametrize(
        ("changes", "score"),
        [
            ({"qos": "Guaranteed"}, -997),
            ({"qos": "BestEffort"}, 1000),
            ({"request_bytes": 100 * MIB}, 900),
            ({"request_bytes": 109 * MIB}, 891),
            ({"request_bytes": 1}, 999),
            ({"request_bytes": 1000 * MIB}, 3),
        ],
    )
    def test_scores_are_kubelets(self, changes: dict[str, Any], score: int) -> None:
        assert a_pod(**changes).oom_score_adj(1000 * MIB) == score


class TestService:
    @pytest.mark.parametrize("endpoints", [1, 100_000, NODES_MAX])
    def test_a_sound_one(self, endpoints: int) -> None:
        assert ServiceSpec(name="web", endpoints=endpoints, mode="native").ports == (80,)

    @pytest.mark.parametrize("endpoints", [0, -1, NODES_MAX + 1])
    def test_an_unsound_one_is_refused(self, endpoints: int) -> None:
        with pytest.raises(BadInputError, match="is outside 1 to 1,000,000"):
            ServiceSpec(name="web", endpoints=endpoints, mode="endpointslices")


@pytest.mark.parametrize(("version", "bare"), [("1.35.0", "1.35.0"), ("v1.37.12", "1.37.12")])
def test_exact_versions(version: str, bare: str) -> None:
    assert require_version(version, where="x") == bare


@pytest.mark.parametrize(
    "version", ["", "1.35", "latest", "1.35.x", "1.35.0-rc.1", "vv1.35.0", "1.35.0\n", "1.\u0663.0"]
)
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(BadInputError, match="no exact version"):
        require_version(version, where="x")


def test_the_error_says_where_and_what_to_do() -> None:
    with pytest.raises(BadInputError) as caught:
        require_count(0, where="nodes")
    assert (
        str(caught.value) == "0 is outside 1 to 1,000,000 (nodes). Remedy: give a count inside these bounds"
    )


@pytest.mark.parametrize(
    ("asked", "endpoints", "mode"),
    [
        ("auto", 1, "native"),
        ("auto", 1000, "native"),
        ("auto", 1001, "adopted"),
        ("auto", 10_000, "adopted"),
        ("auto", 10_001, "endpointslices"),
        ("native", 100_000, "native"),
        ("endpointslices", 1, "endpointslices"),
    ],
)
def test_the_mode_of_a_service_follows_its_size_unless_it_was_asked_for(
    asked: AskedMode, endpoints: int, mode: EndpointMode
) -> None:
    assert endpoint_mode(asked, endpoints) == mode
