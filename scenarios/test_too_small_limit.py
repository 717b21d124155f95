"""A node whose memory is too small for the ruleset: nft is killed, and nobody is told.

nft is the largest process when the limit is reached, so the kernel kills nft, not kubelet. kube-proxy logs
"signal: killed" and tries again every 30 s, for ever. The node stays Ready, and the Service stays as the last
sync that fitted left it.

The Service has two ports, so that kube-proxy 1.35 writes 20,000 endpoint chains for 10,000 endpoints and nft
(230 MiB) outgrows kube-proxy (156 MiB) by a margin. The executables' pages are the host's here: a node that
pays for them does not get its nft killed for minutes, because the kernel reclaims the daemons' text again and
again instead, and the node starves (docs/what-the-numbers-mean.md).
"""

import pytest

from framework import Expectation, Watch

SILENT_OUTAGE = Expectation(
    programming="nft_killed",
    oom_victims=("nft",),
    ready_throughout=True,
    known_bad="kube-proxy up to 1.35 needs about 11 KiB of nft memory for each endpoint and port",
)


@pytest.mark.parametrize("kube_proxy", ["1.35.0"], ids=["kube_proxy-1.35.0"])
def test_nft_is_killed_and_the_node_stays_ready(fleet, real_node, daemonset_service, kube_proxy):
    fleet.grow_to(10_000)
    service = daemonset_service(endpoints=10_000, mode="endpointslices", ports=(80, 443))
    node = real_node(memory="320MiB", kube_proxy=kube_proxy, text="host")
    measurement = node.program(service, Watch(failures=2))
    measurement.expect(SILENT_OUTAGE)
    assert measurement.outcome.retries >= 1
    assert measurement.outcome.retry_interval_s == pytest.approx(30, abs=5)
