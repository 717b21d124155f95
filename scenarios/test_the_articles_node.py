"""The death that is told: a node of 2 GiB, an ordinary one, in a cluster of 100,000.

"The node ran out of memory completely. The OOM killer terminated processes. Eventually, it killed the kubelet
itself", its lease stopped, and it turned NotReady. Here is that node: 2 GiB, what else runs on an ordinary
node held by real pods and daemons, production's OOM scores, and one Service with an endpoint on every node.

At 10,000 endpoints nothing shows. At 100,000 with kube-proxy 1.35 the node is at its edge: what can't be
reclaimed reaches 2,024 MiB of 2,048. What comes of that differs from run to run (docs/how-a-node-dies.md): it
is served, or it starves and turns NotReady with every daemon alive. In none was kubelet killed: the kernel
reclaims the daemons' text before it kills anybody, and then takes a pod. From 1.36 on the node has a GiB to
spare.
"""

import pytest

from framework import MIB, Expectation, Watch

SERVED = Expectation(programming="programmed", oom_victims=(), served="fully", ready_throughout=True)
AT_ITS_EDGE = Expectation(
    no_fates=("kubelet_killed", "containerd_killed", "kube_proxy_killed"),
    charged_bytes_above=2_000 * MIB,
)


@pytest.mark.parametrize("endpoints", [10_000, 100_000], ids=["10k", "100k"])
def test_an_ordinary_2gib_node(fleet, real_node, daemonset_service, endpoints, kube_proxy):
    fleet.require(endpoints)
    service = daemonset_service(endpoints=endpoints, mode="endpointslices")
    node = real_node(memory="2GiB", kube_proxy=kube_proxy, ballast="ordinary")
    edge = endpoints == 100_000 and int(kube_proxy.split(".")[1]) <= 35
    measurement = node.program(service, Watch(until_not_ready=edge))
    measurement.expect(AT_ITS_EDGE if edge else SERVED)
