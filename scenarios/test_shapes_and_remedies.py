"""What makes a Service dear for a node, and what makes it cheap?

The base is one TCP Service of one port, its slices written directly. A *shape* is a way in which a Service
costs more than that, or other than that; a *remedy* a way in which its node pays less, at a price that
docs/remedies.md names. kube-proxy 1.35 writes a chain for each endpoint, 1.37 a map, so an upgrade is the
remedy with the most effect and no price; session affinity takes it back, because each endpoint needs a chain
again.

A default run measures the remedies. `--all-cells` measures the shapes too.
"""

from typing import Any

import pytest

from framework import MIB, Expectation, Watch
from scenarios.rule_layout import layout

SHAPES: dict[str, dict[str, Any]] = {
    "base": {},
    "udp": {"protocol": "UDP"},
    "two-ports": {"ports": (80, 443)},
    "dual-stack": {"dual_stack": True},
    "three-services": {"services": 3},
    "affinity": {"session_affinity": "ClientIP"},
    "local": {"internal_traffic_policy": "Local"},
    "same-zone": {"traffic_distribution": "PreferSameZone"},
    "headless": {"headless": True},
}
SIZES = {"1k": 1_000, "10k": 10_000, "30k": 30_000, "100k": 100_000}
BUSY = {("affinity", 10_000), ("iptables", 30_000)}
"""Syncs so long that on two CPUs there are seconds in which nobody looks whether the node is Ready."""
STANDSTILL = {("affinity", 30_000)}
"""The kernel holds a CPU for minutes, and a control plane on the same two takes no renewal."""
GIVEN_UP_AFTER_S = 120
ANOTHER_ZONE = "zone-1"

PEAKS_MIB: dict[tuple[str, int], dict[str, tuple[float, float]]] = {
    ("base", 1_000): {"chains": (15.8, 258), "map": (6.2, 252)},
    ("udp", 1_000): {"chains": (15.7, 258), "map": (6.1, 254)},
    ("two-ports", 1_000): {"chains": (26.7, 273), "map": (7.5, 256)},
    ("dual-stack", 1_000): {"chains": (15.9, 275), "map": (6.2, 258)},
    ("three-services", 1_000): {"chains": (37.9, 289), "map": (8.9, 258)},
    ("affinity", 1_000): {"chains": (24.1, 270), "map": (20.9, 274)},
    ("iptables", 1_000): {"chains": (7.1, 250), "map": (7.0, 258)},
    ("many", 1_000): {"chains": (40.8, 303), "map": (22.7, 286)},
    ("base", 10_000): {"chains": (115, 402), "map": (18.0, 281)},
    ("dual-stack", 10_000): {"chains": (115, 556), "map": (17.8, 308)},
    ("three-services", 10_000): {"chains": (335, 688), "map": (44.1, 333)},
    ("affinity", 10_000): {"chains": (198, 520), "map": (167, 498)},
    ("local", 10_000): {"chains": (5.1, 251), "map": (5.1, 262)},
    ("same-zone", 10_000): {"chains": (11.7, 264), "map": (5.8, 264)},
    ("headless", 10_000): {"chains": (5.1, 245), "map": (5.1, 251)},
    ("iptables", 10_000): {"chains": (45.6, 326), "map": (45.4, 332)},
    ("many", 10_000): {"chains": (370, 828), "map": (187, 594)},
    ("affinity", 30_000): {"chains": (586, 1003), "map": (490, 923)},
    ("iptables", 30_000): {"chains": (131, 562), "map": (131, 489)},
    ("base", 100_000): {"chains": (1104, 1822), "map": (137, 598)},
    ("dual-stack", 100_000): {"chains": (1199, 3030), "map": (138, 674)},
    ("local", 100_000): {"chains": (5.1, 385), "map": (5.1, 380)},
    ("same-zone", 100_000): {"chains": (73.7, 575), "map": (13.0, 450)},
    ("headless", 100_000): {"chains": (5.1, 243), "map": (5.1, 252)},
}
"""Peaks of the ruleset load and of the node, by layout of kube-proxy's rules: as in docs/remedies.json."""
KUBELETS_TABLES_MIB = 3.1
"""These were measured on nodes whose kubelet made no iptables chains. By default it makes six tables, and nft
allocates half a MiB for each table that there is, also for those of others."""
NODES_OWN_MIB = {"embedded": 0, "kind": 48}
"""A worker of kind's has systemd, journald, a shim and more page cache at every size (docs/kind.md). What a
node of somebody else's cluster has is not known."""
LOAD_MARGIN = 0.1
"""A load's memory repeats to a few percent."""
BATCH_MARGIN = 0.5
"""Several Services are created one by one, and it depends on how many of them one sync has."""
NODE_MARGIN = 0.2
"""kube-proxy's garbage collector moves the node's peak by a tenth."""
IDLE_LOAD_MIB = 10
"""Below this a load is nft itself, and less of it is no news."""


def as_measured(row, endpoints, kube_proxy, *, cluster="embedded"):
    """Served, and with the peaks that were measured, within a margin."""
    load_mib, node_mib = PEAKS_MIB[row, endpoints][layout(kube_proxy)]
    own_mib = NODES_OWN_MIB.get(cluster)
    load_mib += 0 if row == "iptables" else KUBELETS_TABLES_MIB
    margin = BATCH_MARGIN if row == "three-services" else LOAD_MARGIN
    return Expectation(
        programming="programmed",
        nft_bytes_below=int(load_mib * (1 + margin) * MIB),
        nft_bytes_above=int(load_mib * (1 - margin) * MIB) if load_mib > IDLE_LOAD_MIB else None,
        charged_bytes_below=None if own_mib is None else int((node_mib + own_mib) * (1 + NODE_MARGIN) * MIB),
        ready_at_end=None if (row, endpoints) in STANDSTILL else True,
        ready_throughout=None if (row, endpoints) in BUSY | STANDSTILL else True,
    )


def expect_as_measured(measurement, row, endpoints, kube_proxy):
    cluster = measurement.result.parameters["cluster"]
    measurement.expect(as_measured(row, endpoints, kube_proxy, cluster=cluster))


def cells(by_default=None, on_request=None):
    """One parameter set for each row and size, with ids such as affinity-10k."""
    asked: list[tuple[dict[str, str], Any]] = [
        (by_default or {}, ()),
        (on_request or {}, pytest.mark.all_cells),
    ]
    return pytest.mark.parametrize(
        ("row", "endpoints"),
        [
            pytest.param(row, SIZES[size], id=f"{row}-{size}", marks=marks)
            for rows, marks in asked
            for row, sizes in rows.items()
            for size in sizes.split()
        ],
    )


@pytest.fixture
def size(fleet, endpoints):
    """Skips what is too large for the run; no fake nodes are needed."""
    fleet.require(endpoints)
    return endpoints


@cells(
    by_default={
        "base": "10k 100k",
        "dual-stack": "100k",
        "local": "10k 100k",
        "same-zone": "10k 100k",
        "headless": "10k 100k",
    },
    on_request={
        "base": "1k",
        "udp": "1k",
        "two-ports": "1k",
        "dual-stack": "1k 10k",
        "three-services": "1k 10k",
        "affinity": "1k 10k 30k",
    },
)
def test_a_shape_or_remedy(real_node, daemonset_service, row, size, kube_proxy):
    service = daemonset_service(endpoints=size, mode="endpointslices", **SHAPES[row])
    node = real_node(memory="4GiB", kube_proxy=kube_proxy)
    if row == "same-zone":
        node.move_to_zone(ANOTHER_ZONE)
    expect_as_measured(node.program(service), row, size, kube_proxy)


@cells(by_default={"iptables": "10k"}, on_request={"iptables": "1k 30k"})
def test_iptables_mode(real_node, daemonset_service, row, size, kube_proxy):
    service = daemonset_service(endpoints=size, mode="endpointslices")
    node = real_node(memory="4GiB", kube_proxy=kube_proxy, proxy_mode="iptables")
    expect_as_measured(node.program(service), row, size, kube_proxy)


@pytest.mark.parametrize("endpoints", [100_000], ids=["iptables-100k"])
def test_iptables_mode_does_not_get_there(fleet, real_node, daemonset_service, endpoints, kube_proxy):
    fleet.require(endpoints)
    service = daemonset_service(endpoints=endpoints, mode="endpointslices")
    node = real_node(memory="4GiB", kube_proxy=kube_proxy, proxy_mode="iptables")
    measurement = node.program(service, Watch(timeout_s=GIVEN_UP_AFTER_S))
    measurement.expect(
        Expectation(
            programming="timed_out",
            ready_throughout=True,
            known_bad="iptables-restore's time grows faster than the square of the endpoints",
        )
    )


@cells(on_request={"many": "1k 10k"})
def test_many_small_services(real_node, many_services, row, size, kube_proxy):
    """As a node that boots meets them: all at once. Under a running kube-proxy they come as fast as the API
    server makes them, in hundreds of small syncs."""
    services = many_services(count=size, endpoints_each=2)
    node = real_node(memory="4GiB", kube_proxy=kube_proxy)
    expect_as_measured(node.cold_start(services), row, size, kube_proxy)
