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
BUSY = {("affinity", 10_000), ("affinity", 30_000), ("iptables", 30_000)}
"""Syncs so long that on two CPUs there are seconds in which nobody looks whether the node is Ready."""
GIVEN_UP_AFTER_S = 120
ANOTHER_ZONE = "zone-1"

PEAKS_MIB: dict[tuple[str, int], dict[str, tuple[float, float]]] = {
    ("base", 1_000): {"chains": (15.8, 258), "map": (6.1, 254)},
    ("udp", 1_000): {"chains": (15.8, 258), "map": (6.2, 254)},
    ("two-ports", 1_000): {"chains": (26.9, 273), "map": (7.4, 256)},
    ("dual-stack", 1_000): {"chains": (15.8, 275), "map": (6.2, 255)},
    ("three-services", 1_000): {"chains": (37.9, 291), "map": (8.8, 259)},
    ("affinity", 1_000): {"chains": (24.0, 270), "map": (20.8, 274)},
    ("iptables", 1_000): {"chains": (7.2, 251), "map": (7.2, 259)},
    ("many", 1_000): {"chains": (40.9, 303), "map": (22.5, 285)},
    ("base", 10_000): {"chains": (115, 399), "map": (17.7, 281)},
    ("dual-stack", 10_000): {"chains": (124, 471), "map": (17.9, 296)},
    ("three-services", 10_000): {"chains": (287, 631), "map": (35.3, 324)},
    ("affinity", 10_000): {"chains": (198, 521), "map": (167, 505)},
    ("local", 10_000): {"chains": (5.0, 252), "map": (5.1, 261)},
    ("same-zone", 10_000): {"chains": (11.5, 266), "map": (5.8, 264)},
    ("headless", 10_000): {"chains": (5.1, 244), "map": (5.1, 252)},
    ("iptables", 10_000): {"chains": (45.5, 347), "map": (45.5, 333)},
    ("many", 10_000): {"chains": (370, 823), "map": (187, 598)},
    ("affinity", 30_000): {"chains": (586, 1027), "map": (490, 952)},
    ("iptables", 30_000): {"chains": (131, 505), "map": (131, 541)},
    ("base", 100_000): {"chains": (1104, 1814), "map": (137, 606)},
    ("dual-stack", 100_000): {"chains": (1201, 3066), "map": (138, 747)},
    ("local", 100_000): {"chains": (5.1, 409), "map": (5.2, 401)},
    ("same-zone", 100_000): {"chains": (73.6, 611), "map": (12.9, 520)},
    ("headless", 100_000): {"chains": (5.1, 244), "map": (5.1, 252)},
}
"""Peaks of the ruleset load and of the node, by layout of kube-proxy's rules: as in docs/remedies.json."""
LOAD_MARGIN = 0.1
"""A load's memory repeats to a few percent."""
BATCH_MARGIN = 0.5
"""Several Services are created one by one, and it depends on how many of them one sync has."""
NODE_MARGIN = 0.2
"""kube-proxy's garbage collector moves the node's peak by a tenth."""
IDLE_LOAD_MIB = 10
"""Below this a load is nft itself, and less of it is no news."""


def as_measured(row, endpoints, kube_proxy):
    """Served, and with the peaks that were measured, within a margin."""
    load_mib, node_mib = PEAKS_MIB[row, endpoints][layout(kube_proxy)]
    margin = BATCH_MARGIN if row == "three-services" else LOAD_MARGIN
    return Expectation(
        programming="programmed",
        nft_bytes_below=int(load_mib * (1 + margin) * MIB),
        nft_bytes_above=int(load_mib * (1 - margin) * MIB) if load_mib > IDLE_LOAD_MIB else None,
        charged_bytes_below=int(node_mib * (1 + NODE_MARGIN) * MIB),
        ready_at_end=True,
        ready_throughout=None if (row, endpoints) in BUSY else True,
    )


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
    node.program(service).expect(as_measured(row, size, kube_proxy))


@cells(by_default={"iptables": "10k"}, on_request={"iptables": "1k 30k"})
def test_iptables_mode(real_node, daemonset_service, row, size, kube_proxy):
    service = daemonset_service(endpoints=size, mode="endpointslices")
    node = real_node(memory="4GiB", kube_proxy=kube_proxy, proxy_mode="iptables")
    node.program(service).expect(as_measured(row, size, kube_proxy))


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
    node.cold_start(services).expect(as_measured(row, size, kube_proxy))
