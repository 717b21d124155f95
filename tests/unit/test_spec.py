"""What is asked is refused before anything is created."""

from __future__ import annotations

from typing import Any

import pytest

from framework.errors import BadInputError
from framework.spec import (
    NODES_MAX,
    AskedMode,
    Ballast,
    BallastKind,
    EndpointMode,
    ManyServicesSpec,
    OomPolicy,
    RealNodeSpec,
    ServiceSpec,
    endpoint_mode,
    require_count,
    require_version,
)
from framework.units import GIB, MIB


def a_ballast(**changes: Any) -> Ballast:
    sound: dict[str, Any] = {"name": "a", "kind": "system", "memory_bytes": 500 * MIB}
    return Ballast(**(sound | changes))


class TestBallast:
    def test_a_burstable_pod_requests_half_unless_told(self) -> None:
        assert a_ballast().requested_bytes == 250 * MIB
        assert a_ballast(request_bytes=0).requested_bytes == 0

    @pytest.mark.parametrize(
        ("kind", "policy", "form"),
        [
            ("besteffort", "production", "pod"),
            ("guaranteed", {"kubelet": 0}, "pod"),
            ("guaranteed", {"a": 0}, "process"),
            ("besteffort", "flat", "process"),
            ("system", "production", "process"),
        ],
    )
    def test_is_a_pod_where_kubelet_would_give_the_score(
        self, kind: BallastKind, policy: OomPolicy, form: str
    ) -> None:
        node = a_node(ballast=(a_ballast(kind=kind),), oom_policy=policy)
        assert [each.form for each in node.settled(pods_run=True).ballast] == [form]
        assert [each.form for each in node.settled(pods_run=False).ballast] == ["process"]
        assert node.may_have_pods == (form == "pod")

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"form": "pod"}, "can't be a pod"),
            ({"name": "kubelet"}, "can't name a ballast"),
            ({"name": "nft"}, "can't name a ballast"),
            ({"name": ""}, "can't name a ballast"),
            ({"name": "sixteen-letters-"}, "can't name a ballast"),
            ({"name": "a/b"}, "can't name a ballast"),
            ({"memory_bytes": 0}, "holds 0 bytes"),
            ({"request_bytes": 501 * MIB}, "requests"),
            ({"request_bytes": -1}, "requests"),
        ],
    )
    def test_what_can_not_be_is_refused(self, changes: dict[str, Any], what: str) -> None:
        with pytest.raises(BadInputError, match=what) as error:
            a_ballast(**changes)
        assert error.value.where == "ballast"


def a_node(**changes: Any) -> RealNodeSpec:
    sound: dict[str, Any] = {"memory_bytes": 2 * GIB, "kube_proxy": "1.35.0"}
    return RealNodeSpec(**(sound | changes))


class TestRealNode:
    def test_a_sound_one(self) -> None:
        assert a_node(ballast=(a_ballast(), a_ballast(name="b"))).ballast_bytes == 1000 * MIB

    @pytest.mark.parametrize(
        ("changes", "where", "message"),
        [
            ({"memory_bytes": 64 * MIB - 1}, "memory", "can't start its own daemons"),
            ({"ballast": (a_ballast(memory_bytes=2 * GIB),)}, "ballast", "does not fit a node of 2,048 MiB"),
            ({"ballast": (a_ballast(), a_ballast())}, "ballast", "one name twice"),
            (
                {"ballast": (a_ballast(kind="besteffort", form="pod"),), "oom_policy": "flat"},
                "oom_policy",
                "kubelet decides",
            ),
            ({"oom_policy": {}}, "oom_policy", "names nobody"),
            ({"oom_policy": {"kubelet": 0, "nft": 0}}, "oom_policy", "names nft"),
            ({"oom_policy": {"kubelet": -1000}}, "oom_policy", "out of bounds"),
            ({"oom_policy": {"kubelet": 1001}}, "oom_policy", "out of bounds"),
            ({"kube_proxy": "1.35"}, "kube_proxy", "'1.35' is no exact version"),
            ({"kube_proxy_config": {"mode": "iptables"}}, "kube_proxy_config", "give proxy_mode='iptables'"),
            (
                {"proxy_mode": "iptables", "capture_transactions": True},
                "capture_transactions",
                "hands nothing to nft in iptables mode",
            ),
        ],
    )
    def test_an_unsound_one_is_refused(self, changes: dict[str, Any], where: str, message: str) -> None:
        with pytest.raises(BadInputError, match=message) as caught:
            a_node(**changes)
        assert caught.value.where == where

    def test_the_mode_names_the_loader(self) -> None:
        assert a_node().loader == "nft"
        assert a_node(proxy_mode="iptables").loader == "iptables-restore"

    def test_the_smallest_one(self) -> None:
        assert a_node(memory_bytes=64 * MIB).memory_bytes == 64 * MIB

    def test_specs_do_not_share_their_configuration(self) -> None:
        assert a_node().kube_proxy_config is not a_node().kube_proxy_config

    def test_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            a_node().memory_bytes = GIB  # type: ignore[misc]


class TestService:
    @pytest.mark.parametrize("endpoints", [1, 100_000, NODES_MAX])
    def test_a_sound_one(self, endpoints: int) -> None:
        assert ServiceSpec(name="web", endpoints=endpoints, mode="native").ports == (80,)

    @pytest.mark.parametrize("endpoints", [0, -1, NODES_MAX + 1])
    def test_an_unsound_one_is_refused(self, endpoints: int) -> None:
        with pytest.raises(BadInputError, match="is outside 1 to 1,000,000"):
            ServiceSpec(name="web", endpoints=endpoints, mode="endpointslices")

    @pytest.mark.parametrize(
        ("changes", "where"),
        [
            ({"ports": ()}, "ports"),
            ({"ports": (80, 80)}, "ports"),
            ({"services": 0}, "services"),
            ({"services": 100_001}, "services"),
            ({"dual_stack": True}, "dual_stack"),
            ({"headless": True, "internal_traffic_policy": "Local"}, "headless"),
            ({"headless": True, "traffic_distribution": "PreferSameZone"}, "headless"),
        ],
    )
    def test_an_unsound_shape_is_refused(self, changes: dict[str, Any], where: str) -> None:
        with pytest.raises(BadInputError) as caught:
            ServiceSpec(name="web", endpoints=3, mode="native", **changes)
        assert caught.value.where == where

    def test_its_shape_in_words(self) -> None:
        spec = ServiceSpec(
            name="web",
            endpoints=3,
            mode="endpointslices",
            ports=(80, 443),
            protocol="UDP",
            session_affinity="ClientIP",
            dual_stack=True,
            services=2,
            internal_traffic_policy="Local",
            traffic_distribution="PreferSameZone",
        )
        assert spec.shape == (
            "2 ports, UDP, affinity ClientIP, dual-stack, 2 Services, policy Local, PreferSameZone"
        )
        assert ServiceSpec(name="web", endpoints=3, mode="native").shape == ""
        assert ServiceSpec(name="web", endpoints=3, mode="native", headless=True).shape == "headless"

    def test_the_measured_service_keeps_its_name_among_several(self) -> None:
        spec = ServiceSpec(name="web", endpoints=3, mode="native", services=3, ports=(80, 443))
        assert spec.names == ("web", "web-2", "web-3")
        assert spec.proxy_endpoints == 3 * 2 * 3


class TestManyServices:
    def test_a_sound_one(self) -> None:
        spec = ManyServicesSpec(name="small", count=10_000, endpoints_each=2, ports=(80, 443))
        assert (spec.endpoints, spec.proxy_endpoints, spec.mode) == (20_000, 40_000, "endpointslices")
        assert len(set(spec.names)) == 10_000
        assert len({len(name) for name in spec.names}) == 1
        assert spec.shape == "10,000 Services x 2, 2 ports"

    @pytest.mark.parametrize(
        ("changes", "where"),
        [
            ({"count": 0}, "count"),
            ({"endpoints_each": 0}, "endpoints_each"),
            ({"count": 100_000, "endpoints_each": 11}, "count x endpoints_each"),
            ({"ports": ()}, "ports"),
        ],
    )
    def test_an_unsound_one_is_refused(self, changes: dict[str, Any], where: str) -> None:
        sound: dict[str, Any] = {"name": "small", "count": 10, "endpoints_each": 2}
        with pytest.raises(BadInputError) as caught:
            ManyServicesSpec(**(sound | changes))
        assert caught.value.where == where


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


def test_only_slices_written_directly_have_both_families() -> None:
    assert endpoint_mode("auto", 10, dual_stack=True) == "endpointslices"
    assert endpoint_mode("native", 10, dual_stack=True) == "native"
