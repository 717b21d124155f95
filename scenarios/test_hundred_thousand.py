"""One DaemonSet Service in a cluster of 100,000 nodes: which node survives it?"""

import pytest

from framework import Expectation


@pytest.mark.parametrize("memory", ["4GiB", "2GiB", "1400MiB"])
def test_a_node_of_a_cluster_of_100_000(fleet, real_node, daemonset_service, memory, kube_proxy):
    fleet.grow_to(100_000)
    service = daemonset_service(endpoints=100_000)
    node = real_node(memory=memory, kube_proxy=kube_proxy)
    measurement = node.program(service)
    measurement.expect(Expectation(ready_throughout=True))
