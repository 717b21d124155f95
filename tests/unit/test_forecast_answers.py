"""What a forecast says, and what it says of a running cluster: counted as kube-proxy counts, and in words."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from aiohttp import web
from rich.console import Console, RenderableType
from test_cluster_bulk import Answer, ask
from test_existing import a_kubeconfig
from test_forecast import LARGE, SMALL, a_model, bent, node, without
from test_report_run_folder import ENVIRONMENT

from framework.analysis.forecast import Colour, Load, Prediction, endurance_of
from framework.answers import (
    FORECAST_FILE,
    Check,
    ClusterCounts,
    ForecastAsked,
    ForecastResult,
    ForecastTable,
    LiveTable,
    LiveWarning,
    load_forecast,
    read_counts,
    warn,
)
from framework.answers.live import (
    Node,
    NodeGroup,
    Service,
    Slice,
    counted,
    image_tag,
    proxy_mode,
)
from framework.cluster import ApiEndpoint, ApiError, Bulk, ExistingSettings
from framework.errors import BadInputError, KilonodeError
from framework.outcome import FidelityItem
from framework.units import GIB, MIB
from framework.versioned_file import write_versioned

OLD: Final = a_model(kube_proxy="1.35.0")
NEW: Final = a_model(
    kube_proxy="1.37.2",
    nft_bytes=lambda load: 8_000_000 + 1_300 * load.endpoints,
    nft_list_bytes=lambda load: None,
)


def a_check(value: float = 1100 * MIB, found: float = 1000 * MIB, what: str = "node") -> Check:
    """Of a prediction that is sure to a tenth."""
    predicted = Prediction(value=value, low=0.9 * value, high=1.1 * value)
    return Check(kube_proxy="1.35.0", what=what, predicted=predicted, found=found)


def a_forecast(**changes: Any) -> ForecastResult:
    result = ForecastResult(
        format=1,
        made_utc="2025-11-15T10:15:00+00:00",
        command="kilonode forecast",
        target=100_000,
        models=(OLD, NEW),
        checks=(),
        environment=ENVIRONMENT,
        fidelity=(FidelityItem(id="cgroup-v1", what="v1", effect="differs"),),
    )
    return msgspec.structs.replace(result, **changes)


def drawn(what: RenderableType) -> str:
    text = io.StringIO()
    Console(file=text, width=100).print(what)
    return text.getvalue()


def rows(text: str, title: str = "") -> list[list[str]]:
    """The cells of the first table after ``title``."""
    after = text[text.index(title) :].splitlines()
    first, last, *_ = (number for number, line in enumerate(after) if line.startswith("+-"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in after[first + 1 : last]]


def table(text: str, title: str = "") -> dict[str, list[str]]:
    """The other cells of each row by its first one."""
    return {first: rest for first, *rest in rows(text, title)}


class TestAsked:
    @pytest.mark.parametrize(
        ("asked", "where"),
        [
            ({"target": 0}, "endpoints"),
            ({"target": 1_000_001}, "endpoints"),
            ({"endpoints_high": 1999}, "up-to"),
            ({"endpoints_high": 20_001}, "up-to"),
        ],
    )
    def test_sizes_that_tell_too_little_are_refused(self, asked: dict[str, Any], where: str) -> None:
        with pytest.raises(BadInputError, match="outside") as refused:
            ForecastAsked(kube_proxies=("1.35.0",), **{"target": 100_000, **asked})
        assert refused.value.where == where

    @pytest.mark.parametrize(("target", "high"), [(1, 2000), (1_000_000, 20_000)])
    def test_sizes_at_the_bounds_are_taken(self, target: int, high: int) -> None:
        assert ForecastAsked(kube_proxies=(), target=target, endpoints_high=high).target == target


class TestCheck:
    def test_says_how_much_too_high_it_was(self) -> None:
        assert a_check(1100, 1000).off == pytest.approx(0.1)
        assert a_check(900, 1000).off == pytest.approx(-0.1)

    @pytest.mark.parametrize(("found", "covered"), [(899, False), (900, True), (1100, True), (1101, False)])
    def test_covers_what_is_inside_its_interval(self, found: float, covered: bool) -> None:
        predicted = Prediction(value=1000, low=900, high=1100)
        check = Check(kube_proxy="1.35.0", what="node", predicted=predicted, found=found)
        assert check.covered is covered


class TestLoad:
    def test_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        result = a_forecast(checks=(a_check(),))
        write_versioned(tmp_path / FORECAST_FILE, result)
        assert load_forecast(tmp_path / FORECAST_FILE) == result
        assert load_forecast(tmp_path) == result

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ('{"format": 2}', "format 2, this kilonode reads 1"),
            ('{"format": 1}', "damaged"),
            ("no", "damaged"),
        ],
    )
    def test_another_file_is_refused(self, tmp_path: Path, text: str, says: str) -> None:
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(BadInputError, match=says) as refused:
            load_forecast(tmp_path / "x.json")
        assert "`kilonode forecast --json`" in refused.value.remedy


class TestForecastTable:
    @staticmethod
    def text(result: ForecastResult, memories: Sequence[int] = (GIB, 4096 * GIB)) -> str:
        return drawn(ForecastTable(result, memories, 300 * MIB, "300MiB"))

    def test_has_the_parts_of_each_kube_proxy(self) -> None:
        text = self.text(a_forecast())
        old, new = (
            table(text, f"kube-proxy {version}, one Service, MiB") for version in ("1.35.0", "1.37.2")
        )
        assert old["nft, loading"] == ["11.23", "-", "62.5", "1,104", "1,082 to 1,126"]
        assert old["containerd, kubelet"][:3] == ["-", "-", "33.4"]
        assert old["sync"] == ["0.20 ms", "0.00 ms", "1.10 s", "20.10 s", "10.05 s to 40.20 s"]
        assert new["nft, loading"][3] == "132"
        assert "nft, listing" in old
        assert "nft, listing" not in new
        assert old["node, unreclaimable"][3] == f"{node(OLD).value / MIB:,.0f}"
        assert old["node, all charged"][3] == f"{(node(OLD).value + 210_000_000) / MIB:,.0f}"

    def test_has_a_dash_for_what_the_largest_size_did_not_tell(self) -> None:
        largest = OLD.samples[-1].load
        unlisted = a_model(
            nft_list_bytes=lambda load: None if load == largest else 8_000_000 + 2000 * load.endpoints
        )
        assert table(self.text(a_forecast(models=(unlisted,))))["nft, listing"][2] == "-"

    def test_says_when_nodes_die(self) -> None:
        text = self.text(a_forecast(models=(OLD, without(NEW, "kernel"))))
        ends_by_memory = table(text, "At how many endpoints of one Service a node dies, ballast 300MiB")
        ends = endurance_of(OLD, memory_bytes=GIB, ballast_bytes=300 * MIB)
        assert ends is not None
        expected, earliest, latest = (
            f"{round(each or 0, -2):,}" for each in (ends.endpoints, ends.earliest, ends.latest)
        )
        assert ends_by_memory["1,024 MiB"] == [f"{expected} ({earliest} to {latest})", "unknown"]
        assert ends_by_memory["4,194,304 MiB"][0] == "> 2m (> 2m to > 2m)"

    def test_says_how_predictions_fared(self) -> None:
        checks = (a_check(), a_check(found=2000 * MIB, what="nft"), a_check(20, 19.5, what="sync"))
        text = self.text(a_forecast(checks=checks))
        fared = rows(text, "Predicted and measured at 100,000")[2:]
        assert [cells[1:] for cells in fared] == [
            ["node, all charged", "1,100", "990 to 1,210", "1,000", "+10.0%", "inside"],
            ["nft, loading", "1,100", "990 to 1,210", "2,000", "-45.0%", "OUTSIDE"],
            ["sync", "20.00 s", "18.00 s to 22.00 s", "19.50 s", "+2.6%", "inside"],
        ]

    def test_says_once_what_is_not_to_be_trusted(self) -> None:
        text = " ".join(self.text(a_forecast(models=(a_model(kernel_bytes=bent), NEW))).split())
        assert text.count("Not to be trusted") == 1
        assert "kube-proxy 1.35.0, kernel memory: it is no straight line" in text

    def test_says_where_it_comes_from(self) -> None:
        text = self.text(a_forecast())
        assert "Kernel 6.18.0, nft 1.0.6" in text
        assert "Unlike production: cgroup-v1." in text
        for title in ("Predicted and measured", "Not to be trusted"):
            assert title not in text


def a_service(name: str, *, ports: int = 1, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    whole = {"clusterIP": "10.96.0.7", "ports": [{"port": port} for port in range(1, ports + 1)]}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": whole | spec}


def a_slice(
    service: str,
    ready: Sequence[bool | None] = (True,),
    *,
    ports: int = 1,
    family: str = "IPv4",
    namespace: str = "default",
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"{service}-{family}",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service} if service else {},
        },
        "addressType": family,
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {} if each is None else {"ready": each}}
            for each in ready
        ],
        "ports": [{"port": port} for port in range(1, ports + 1)],
    }


def a_node(name: str, memory: str | None) -> dict[str, Any]:
    capacity = {"cpu": "2"} if memory is None else {"cpu": "2", "memory": memory}
    return {"metadata": {"name": name}, "status": {"capacity": capacity}}


def a_count(
    services: Sequence[dict[str, Any]] = (),
    slices: Sequence[dict[str, Any]] = (),
    nodes: Sequence[dict[str, Any]] = (),
) -> ClusterCounts:
    return counted(
        msgspec.convert(services, list[Service]),
        msgspec.convert(slices, list[Slice]),
        msgspec.convert(nodes, list[Node]),
        kube_proxy_tag="v1.35.0",
        mode="nftables",
    )


class TestCounted:
    def test_each_ready_endpoint_counts_once_for_each_port_and_family(self) -> None:
        counts = a_count(
            [a_service("a", ports=2), a_service("b", namespace="other")],
            [
                a_slice("a", [True, None, False], ports=2),
                a_slice("a", [True, True], ports=2, family="IPv6"),
                a_slice("b", [True] * 5, namespace="other"),
            ],
        )
        assert (counts.services, counts.service_ports) == (2, 3)
        assert counts.load == Load(endpoints=13, service_ports=3)
        assert counts.endpoints_by_family == {"IPv4": 9, "IPv6": 4}
        assert (counts.largest_service, counts.largest_service_endpoints) == ("default/a", 8)

    @pytest.mark.parametrize(
        ("services", "slices"),
        [
            ([a_service("a", clusterIP="None")], [a_slice("a")]),
            ([a_service("a", clusterIP="")], [a_slice("a")]),
            ([a_service("a", type="ExternalName")], [a_slice("a")]),
            ([], [a_slice("a")]),
            ([], [a_slice("")]),
            ([a_service("a", clusterIP="None")], [a_slice("a") | {"endpoints": None, "ports": None}]),
        ],
        ids=["headless", "no IP", "external", "no Service", "no label", "empty"],
    )
    def test_what_kube_proxy_does_not_program_counts_for_nothing(
        self, services: list[dict[str, Any]], slices: list[dict[str, Any]]
    ) -> None:
        counts = a_count(services, slices)
        assert counts.load == Load(endpoints=0, service_ports=0)
        assert (counts.services, counts.largest_service) == (0, "")

    def test_a_namespace_of_its_own_keeps_a_slice_from_a_namesake(self) -> None:
        assert a_count([a_service("a")], [a_slice("a", namespace="other")]).endpoints == 0

    def test_a_service_without_endpoints_counts_with_its_ports(self) -> None:
        empty = a_slice("a") | {"endpoints": None, "ports": None}
        assert a_count([a_service("a", ports=3)], [empty]).load == Load(endpoints=0, service_ports=3)

    def test_nodes_alike_are_a_group_by_the_smallest_of_them(self) -> None:
        memories = ["16393244Ki", "2100000Ki", "16393240Ki", "2200000Ki", "2621440Ki", None, "odd"]
        counts = a_count(nodes=[a_node(f"n{place}", memory) for place, memory in enumerate(memories)])
        assert counts.nodes == 7
        assert [(group.memory_bytes // 1024, group.nodes) for group in counts.groups] == [
            (2_100_000, 2),
            (2_621_440, 1),
            (16_393_240, 2),
        ]


def a_daemonset(image: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "kube-proxy", "image": image}]}}}}


def a_config(text: Any) -> dict[str, Any]:
    return {"data": {"config.conf": text}}


class TestKubeProxy:
    @pytest.mark.parametrize(
        ("daemonset", "tag"),
        [
            (a_daemonset("registry.k8s.io/kube-proxy:v1.35.0"), "v1.35.0"),
            (a_daemonset("registry.k8s.io/kube-proxy:1.35.12"), "1.35.12"),
            (a_daemonset(f"localhost:5000/kube-proxy:v1.35.0@sha256:{'0' * 64}"), "v1.35.0"),
            (a_daemonset(f"registry.k8s.io/kube-proxy@sha256:{'0' * 64}"), ""),
            (a_daemonset("localhost:5000/kube-proxy"), ""),
            (a_daemonset("kube-proxy"), ""),
            (a_daemonset("kube-proxy:latest"), "latest"),
            (a_daemonset("localhost:5000/eks/kube-proxy:v1.35.0-eksbuild.2"), "v1.35.0-eksbuild.2"),
            (a_daemonset(None), ""),
            ({}, ""),
            ({"spec": {"template": {"spec": {"containers": []}}}}, ""),
            ({"spec": {"template": None}}, ""),
        ],
    )
    def test_tag_is_that_of_its_image(self, daemonset: Mapping[str, Any], tag: str) -> None:
        assert image_tag(daemonset) == tag

    @pytest.mark.parametrize(
        ("tag", "version"),
        [
            ("v1.35.0", "1.35.0"),
            ("1.35.12", "1.35.12"),
            ("v1.35", ""),
            ("v1.35.0-rc.1", ""),
            ("v1.35.0-eksbuild.2", ""),
            ("latest", ""),
            ("", ""),
        ],
    )
    def test_version_is_that_of_kubernetes_own_builds(self, tag: str, version: str) -> None:
        assert counts_of(kube_proxy_tag=tag).kube_proxy == version

    @pytest.mark.parametrize(
        ("config_map", "mode"),
        [
            (a_config("mode: nftables"), "nftables"),
            (a_config("mode: ipvs\nkind: KubeProxyConfiguration"), "ipvs"),
            (a_config('mode: ""'), "iptables"),
            (a_config("kind: KubeProxyConfiguration"), "iptables"),
            (a_config(""), ""),
            (a_config("mode: ["), ""),
            (a_config("- mode"), ""),
            (a_config(None), ""),
            ({"data": {"other": "mode: nftables"}}, ""),
            ({"data": None}, ""),
            ({}, ""),
        ],
    )
    def test_mode_is_that_of_its_configuration(self, config_map: Mapping[str, Any], mode: str) -> None:
        assert proxy_mode(config_map) == mode


def counts_of(*memories: int, **changes: Any) -> ClusterCounts:
    """A cluster of 1,000 nodes with 100,000 endpoints, of which each size has as many."""
    counts = ClusterCounts(
        services=1,
        service_ports=1,
        endpoints=LARGE.endpoints,
        endpoints_by_family={"IPv4": LARGE.endpoints},
        largest_service="default/large",
        largest_service_endpoints=90_000,
        nodes=1000,
        groups=tuple(NodeGroup(memory_bytes=size, nodes=1000 // len(memories)) for size in memories),
        kube_proxy_tag="v1.35.0",
        mode="nftables",
    )
    return msgspec.structs.replace(counts, **changes)


def warned(counts: ClusterCounts, *models: Any, kube_proxy: str = "", ballast_bytes: int = 0) -> LiveWarning:
    return warn(
        counts, models or (OLD, NEW), kube_proxy=kube_proxy, ballast_bytes=ballast_bytes, context="production"
    )


class TestWarn:
    def test_each_size_of_nodes_has_its_colour_and_its_end(self) -> None:
        warning = warned(counts_of(GIB, 1800 * MIB, 4 * GIB))
        assert [group.colour for group in warning.groups] == ["red", "amber", "green"]
        assert (warning.colour, warning.unknown, warning.kube_proxy) == ("red", "", "1.35.0")
        for group in warning.groups:
            assert group.need_bytes == round(node(OLD).value)
            assert group.need_bytes_high == round(node(OLD).high)
            assert group.endpoints_red == endurance_of(
                OLD, memory_bytes=group.group.memory_bytes, ballast_bytes=0
            )

    def test_ports_of_services_take_their_part_as_endpoints_grow(self) -> None:
        ported = a_model(
            [*SMALL, Load(endpoints=500, service_ports=250)],
            nft_bytes=lambda load: 8_000_000 + 11_500 * load.endpoints + 15_000 * load.service_ports,
        )
        few, many = (
            warned(counts_of(4 * GIB, service_ports=ports), ported).groups[0] for ports in (1, 10_000)
        )
        assert few.need_bytes is not None
        assert many.need_bytes is not None
        assert many.need_bytes > few.need_bytes
        assert many.endpoints_red == endurance_of(
            ported, memory_bytes=4 * GIB, ballast_bytes=0, service_ports=10_000
        )
        assert many.endpoints_red != few.endpoints_red

    def test_ballast_leaves_less(self) -> None:
        assert warned(counts_of(4 * GIB), ballast_bytes=3 * GIB).colour == "red"

    def test_a_version_that_was_given_goes_before_the_one_that_was_read(self) -> None:
        warning = warned(counts_of(GIB), kube_proxy="1.37.2")
        assert (warning.colour, warning.kube_proxy) == ("green", "1.37.2")

    def test_a_mode_that_nobody_could_read_is_taken_for_nftables(self) -> None:
        assert warned(counts_of(4 * GIB, mode="")).colour == "green"

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"mode": "iptables"}, "kube-proxy runs in iptables mode"),
            (
                {"kube_proxy_tag": "v1.35.0-eksbuild.2"},
                "the tag v1.35.0-eksbuild.2, no version of Kubernetes'",
            ),
            ({"kube_proxy_tag": ""}, "can't be read from its DaemonSet's image: give --kube-proxy"),
            ({"kube_proxy_tag": "v1.36.1"}, "no model of kube-proxy 1.36.1 (there are 1.35.0, 1.37.2)"),
        ],
    )
    def test_without_a_model_that_holds_nothing_is_said_but_why(
        self, changes: dict[str, Any], says: str
    ) -> None:
        warning = warned(counts_of(64 * GIB, **changes))
        assert warning.colour == "unknown"
        assert says in warning.unknown
        (group,) = warning.groups
        assert (group.need_bytes, group.need_bytes_high, group.endpoints_red) == (None, None, None)

    @pytest.mark.parametrize(
        ("model", "says"),
        [
            (a_model(nft_bytes=bent), "not to be trusted at so many endpoints: it is no straight line"),
            (without(OLD, "kernel"), "the model lacks a part"),
        ],
    )
    def test_a_model_that_tells_nothing_here_says_why(self, model: Any, says: str) -> None:
        warning = warned(counts_of(64 * GIB), model)
        assert warning.colour == "unknown"
        assert says in warning.unknown

    def test_a_cluster_whose_nodes_have_no_memory_has_no_colour(self) -> None:
        warning = warned(counts_of())
        assert warning.colour == "unknown"
        assert warning.unknown == "no node says how much memory it has"

    @pytest.mark.parametrize(
        ("colours", "worst"),
        [
            (["green", "amber"], "amber"),
            (["amber", "unknown", "green"], "unknown"),
            (["unknown", "red"], "red"),
            (["green"], "green"),
            ([], "unknown"),
        ],
    )
    def test_the_worst_colour_is_the_clusters(self, colours: list[Colour], worst: Colour) -> None:
        (group,) = warned(counts_of(GIB)).groups
        groups = tuple(msgspec.structs.replace(group, colour=each) for each in colours)
        assert msgspec.structs.replace(warned(counts_of()), groups=groups).colour == worst

    def test_nodes_grow_as_endpoints_do(self) -> None:
        (group,) = warned(counts_of(GIB)).groups
        counts = counts_of(GIB)
        assert group.nodes_at(60_000, counts) == 600
        assert group.nodes_at(None, counts) is None
        assert group.nodes_at(60_000, msgspec.structs.replace(counts, endpoints=0)) is None


class TestLiveTable:
    @staticmethod
    def text(warning: LiveWarning) -> str:
        return drawn(LiveTable(warning))

    def test_says_the_worst_first_and_how_each_size_stands(self) -> None:
        text = self.text(warned(counts_of(GIB, 4096 * GIB), ballast_bytes=100 * MIB))
        assert " ".join(text.partition("+-")[0].split()) == (
            "RED: 100,000 endpoints of 1 Services with 1 ports, 1,000 nodes, kube-proxy 1.35.0"
        )
        ends = endurance_of(OLD, memory_bytes=GIB, ballast_bytes=100 * MIB)
        assert ends is not None
        assert ends.endpoints is not None
        need, most = (f"{each / MIB:,.0f}" for each in (node(OLD).value, node(OLD).high))
        sizes = table(text)
        assert sizes["1,024 MiB"] == [
            "500",
            need,
            most,
            f"{round(ends.endpoints, -2):,}",
            f"{ends.endpoints // 100:,}",
            "red",
        ]
        assert sizes["4,194,304 MiB"] == ["500", need, most, "> 2m", "-", "green"]
        assert "The largest Service is default/large: 90,000 endpoints" in text
        assert "100 MiB are left for all else" in text

    def test_says_why_there_is_no_colour(self) -> None:
        text = self.text(warned(counts_of(GIB, mode="iptables")))
        assert text.startswith("UNKNOWN: kube-proxy runs in iptables mode")
        assert table(text)["1,024 MiB"] == ["1,000", "?", "?", "?", "?", "unknown"]

    def test_has_no_number_of_nodes_where_there_are_no_endpoints(self) -> None:
        counts = counts_of(GIB, endpoints=0, service_ports=0, largest_service="")
        text = self.text(warned(counts))
        assert table(text)["1,024 MiB"][-2:] == ["?", "green"]
        assert "The largest Service" not in text

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"mode": ""}, "kube-proxy's mode can't be read"),
            ({"endpoints_by_family": {"IPv4": 60_000, "IPv6": 40_000}}, "Endpoints of both families"),
        ],
    )
    def test_says_what_it_takes_for_granted(self, changes: dict[str, Any], says: str) -> None:
        assert says in self.text(warned(counts_of(GIB, **changes)))
        assert says not in self.text(warned(counts_of(GIB)))


OBJECTS: Final = {
    "/api/v1/services": [a_service("a"), a_service("b", ports=2), a_service("c", clusterIP="None")],
    "/apis/discovery.k8s.io/v1/endpointslices": [
        a_slice("a", [True] * 10),
        a_slice("b", [True, False], ports=2),
        a_slice("c"),
    ],
    "/api/v1/nodes": [a_node("n0", "4Gi"), a_node("n1", "4Gi")],
}
PROXY: Final = {
    "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy": a_daemonset("kube-proxy:v1.37.2"),
    "/api/v1/namespaces/kube-system/configmaps/kube-proxy": a_config("mode: nftables"),
}


def serving(proxy: Mapping[str, Any], refused: Mapping[str, int]) -> Answer:
    """A cluster that gives lists an object at a time."""

    async def answer(request: web.Request) -> web.Response:
        if request.path in refused:
            return web.Response(status=refused[request.path], text="forbidden: the user may not")
        if request.path not in OBJECTS:
            return web.json_response(proxy.get(request.path), status=200 if request.path in proxy else 404)
        items, place = OBJECTS[request.path], int(request.query["continue"] or 0)
        token = str(place + 1) if place + 1 < len(items) else ""
        return web.json_response({"metadata": {"continue": token}, "items": [items[place]]})

    return answer


class TestReadCounts:
    @staticmethod
    def read(
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        proxy: Mapping[str, Any] = PROXY,
        refused: Mapping[str, int] | None = None,
    ) -> ClusterCounts:
        settings = ExistingSettings(kubeconfig=str(a_kubeconfig(folder)), context="staging")

        async def work(bulk: Bulk) -> ClusterCounts:
            monkeypatch.setattr(ApiEndpoint, "from_kubeconfig", lambda *_, **__: bulk.endpoint)
            return await asyncio.to_thread(read_counts, settings)

        counts: ClusterCounts = ask(serving(proxy, refused or {}), work)
        return counts

    def test_every_page_is_counted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        counts = self.read(tmp_path, monkeypatch)
        assert counts.load == Load(endpoints=12, service_ports=3)
        assert (counts.services, counts.nodes) == (2, 2)
        assert counts.groups == (NodeGroup(memory_bytes=4 * GIB, nodes=2),)
        assert (counts.kube_proxy, counts.mode) == ("1.37.2", "nftables")

    @pytest.mark.parametrize("status", [403, 404])
    def test_a_cluster_need_not_show_its_kube_proxy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
    ) -> None:
        counts = self.read(tmp_path, monkeypatch, refused=dict.fromkeys(PROXY, status))
        assert (counts.kube_proxy, counts.mode, counts.endpoints) == ("", "", 12)

    @pytest.mark.parametrize(("path", "status"), [*zip(OBJECTS, (401, 403, 403), strict=True)])
    def test_a_list_that_is_refused_names_the_rights(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, status: int
    ) -> None:
        with pytest.raises(KilonodeError, match="refuses to list what is counted") as refused:
            self.read(tmp_path, monkeypatch, refused={path: status})
        assert "forbidden: the user may not" in refused.value.what
        assert path in refused.value.where
        assert "get and list of services, nodes and endpointslices.discovery.k8s.io" in refused.value.remedy

    def test_another_error_stays_what_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ApiError) as failed:
            self.read(tmp_path, monkeypatch, refused={next(iter(PROXY)): 400})
        assert failed.value.status == 400
