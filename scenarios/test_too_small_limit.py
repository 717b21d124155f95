"""A node whose memory is too small for the ruleset: nobody is told.

nft is the largest process when the limit is reached, so the kernel kills nft, not kubelet. kube-proxy logs
"signal: killed" and tries again every 30 s, for ever; the node stays Ready, with no rules for the Service.
"""

import pytest

from framework import Expectation

SILENT_OUTAGE = Expectation(
    programming="nft_killed",
    oom_victims=("nft",),
    ready_throughout=True,
    known_bad="kube-proxy up to 1.35 needs 114 MiB of nft memory for 10,000 endpoints",
)


@pytest.mark.parametrize("kube_proxy", ["1.35.0"], ids=["kube_proxy-1.35.0"])
def test_nft_is_killed_and_the_node_stays_ready(fleet, real_node, daemonset_service, kube_proxy):
    fleet.grow_to(10_000)
    service = daemonset_service(endpoints=10_000)
    node = real_node(memory="200MiB", kube_proxy=kube_proxy)
    measurement = node.program(service)
    measurement.expect(SILENT_OUTAGE)
    assert measurement.outcome.retries >= 1
