"""One DaemonSet Service in a cluster of 100,000 nodes: how much memory must a node have?

The ladder has the 2 GiB node; here are a larger and a smaller one. With kube-proxy 1.35 nft alone needs 1.1
GiB for the Service, so a node of 1,400 MiB never gets it: nft is killed at each sync, every 30 s, and the
node stays Ready. From 1.36 on the same Service fits easily.

The executables' pages are the small node's host's: a node that pays for them reclaims them again and again
near its limit, and starves instead of having its nft killed (docs/what-the-numbers-mean.md).
"""

import pytest

from framework import Expectation

ENDPOINTS = 100_000
SERVED = Expectation(programming="programmed", ready_throughout=True)
SILENT_OUTAGE = Expectation(
    programming="nft_killed",
    oom_victims=("nft",),
    ready_throughout=True,
    known_bad="kube-proxy up to 1.35 needs about 11 KiB of nft memory for each endpoint",
)


@pytest.fixture
def service(fleet, daemonset_service):
    fleet.grow_to(ENDPOINTS)
    return daemonset_service(endpoints=ENDPOINTS)


def test_a_4gib_node_is_served(service, real_node, kube_proxy):
    real_node(memory="4GiB", kube_proxy=kube_proxy).program(service).expect(SERVED)


def test_a_1400mib_node_is_served_from_kube_proxy_1_36_on(service, real_node, kube_proxy):
    minor = int(kube_proxy.split(".")[1])
    node = real_node(memory="1400MiB", kube_proxy=kube_proxy, text="host")
    node.program(service).expect(SILENT_OUTAGE if minor <= 35 else SERVED)
