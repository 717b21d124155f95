"""What makes a Service dear for a node, and what makes it cheap?

The base is one TCP Service of one port, its slices written directly. A *shape* is a way in which a Service
costs more than that, or other than that; a *remedy* a way in which its node pays less, at a price that
docs/remedies.md names. kube-proxy 1.35 writes a chain for each endpoint, 1.37 a map, so an upgrade is the
remedy with the most effect and no price; session affinity takes it back, because each endpoint needs a chain
again.
"""

import pytest

from framework import Expectation

SHAPES = {
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
SLOW = {("dual-stack", 10_000), ("three-services", 10_000), ("affinity", 10_000), ("many", 10_000)}
"""Measured only where everything is: with --max-nodes 100k."""
GIVEN_UP_AFTER_S = 120


def layout(kube_proxy):
    """Which rules a version writes for an endpoint."""
    return "chains" if int(kube_proxy.split(".")[1]) <= 35 else "map"


def cells(**rows):
    """One parameter set for each row and size, with ids such as affinity-10k."""
    return pytest.mark.parametrize(
        ("row", "endpoints"),
        [
            pytest.param(row, SIZES[size], id=f"{row}-{size}")
            for row, sizes in ((name.replace("_", "-"), sizes) for name, sizes in rows.items())
            for size in sizes.split()
        ],
    )


@pytest.fixture
def size(fleet, row, endpoints):
    """Skips what is too large for the run; no fake nodes are needed."""
    fleet.require(SIZES["100k"] if (row, endpoints) in SLOW else endpoints)
    return endpoints


@cells(
    base="1k 10k 100k",
    udp="1k",
    two_ports="1k",
    dual_stack="1k 10k 100k",
    three_services="1k 10k",
    affinity="1k 10k",
    local="10k 100k",
    same_zone="10k 100k",
    headless="10k 100k",
)
def test_a_shape_or_remedy(real_node, daemonset_service, row, size, kube_proxy):
    service = daemonset_service(endpoints=size, mode="endpointslices", **SHAPES[row])
    node = real_node(memory="4GiB", kube_proxy=kube_proxy)
    node.program(service).expect(Expectation(programming="programmed"))


@cells(iptables="1k 10k 30k")
def test_iptables_mode(real_node, daemonset_service, row, size, kube_proxy):
    service = daemonset_service(endpoints=size, mode="endpointslices")
    node = real_node(memory="4GiB", kube_proxy=kube_proxy, proxy_mode="iptables")
    node.program(service).expect(Expectation(programming="programmed"))


@cells(iptables="100k")
def test_iptables_mode_does_not_get_there(real_node, daemonset_service, row, size, kube_proxy):
    service = daemonset_service(endpoints=size, mode="endpointslices")
    node = real_node(memory="4GiB", kube_proxy=kube_proxy, proxy_mode="iptables")
    measurement = node.program(service, timeout_s=GIVEN_UP_AFTER_S)
    measurement.expect(
        Expectation(
            programming="timed_out",
            ready_throughout=True,
            known_bad="iptables-restore's time grows with the square of the endpoints",
        )
    )


@cells(many="1k 10k")
def test_many_small_services(real_node, many_services, row, size, kube_proxy):
    services = many_services(count=size, endpoints_each=2)
    node = real_node(memory="4GiB", kube_proxy=kube_proxy)
    node.program(services).expect(Expectation(programming="programmed"))
