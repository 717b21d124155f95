"""Does it matter to a node whether the cluster has 100,000 other nodes, or only its Service the endpoints?

kube-proxy watches its own Node only and kubelet nobody else's, so a node should pay for endpoints alone. The
controlled experiment: the same 100,000 endpoints, written directly, in a cluster with 100,000 fake nodes and
in one with none. What remains of a difference is the control plane's: it shares CPUs with the node, and how
the slices arrive decides how often kube-proxy syncs.
"""

import pytest

from framework import Expectation

ENDPOINTS = 100_000


@pytest.mark.parametrize("nodes", [100_000, 0], ids=["100k-nodes", "no-nodes"])
def test_a_node_pays_for_endpoints_not_for_nodes(fleet, real_node, daemonset_service, nodes, kube_proxy):
    fleet.require(100_000)
    fleet.set_to(nodes)
    service = daemonset_service(endpoints=ENDPOINTS, mode="endpointslices")
    node = real_node(memory="4GiB", kube_proxy=kube_proxy)
    measurement = node.program(service)
    measurement.expect(Expectation(programming="programmed", ready_throughout=True))
