"""What does the life of a Service cost a node, after its first programming?

One endpoint of 10,000 moves, then a hundredth of them, then some each second; kube-proxy restarts; a label of
the Node changes; the node boots again; the Service goes. Until 1.35 each of these hands nft the Service's
whole set of rules again, one endpoint as much as all; from 1.36 on the same, in a tenth of the memory.

Each phase is a measurement with peaks of its own.
"""

import pytest

from framework import MIB, Expectation
from scenarios.rule_layout import layout

NFT_BYTES_MAX = {"chains": 140 * MIB, "map": 25 * MIB}
"""Of 10,000 endpoints, any phase: what was measured in November 2026 with nft 1.0.6 (116 to 126 and 18 to 20
MiB), plus a tenth or more."""
KERNEL_BYTES_LEFT_MAX = 8 * MIB


@pytest.mark.parametrize("endpoints", [10_000, 100_000], ids=["10k", "100k"])
def test_each_phase_of_a_services_life(fleet, real_node, daemonset_service, endpoints, kube_proxy):
    fleet.require(endpoints)
    service = daemonset_service(endpoints=endpoints, mode="endpointslices")
    node = real_node(memory="4GiB", kube_proxy=kube_proxy)
    served = Expectation(
        programming="programmed",
        nft_bytes_below=NFT_BYTES_MAX[layout(kube_proxy)] * endpoints // 10_000,
        served="fully",
        ready_throughout=True,
    )
    node.program(service).expect(served)
    node.change_endpoints(service, 1).expect(served)
    node.change_endpoints(service, endpoints // 100).expect(served)
    node.roll_endpoints(service, per_s=50, for_s=15).expect(served)
    node.restart_kube_proxy(service).expect(served)
    node.resync(service).expect(served)
    node.cold_start(service).expect(served)
    deleted = node.delete(service)
    deleted.expect(Expectation(programming="programmed", ready_throughout=True))
    assert deleted.outcome.kernel_bytes_left < KERNEL_BYTES_LEFT_MAX
