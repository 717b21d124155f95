"""One DaemonSet Service with an endpoint on every node: what does a 2 GiB node pay as the cluster grows?

kube-proxy hands nft the whole of the Service's rules at each sync. Until 1.35 that is a chain and two rules
for each endpoint, about 11 KB of nft memory; from 1.36 on, elements of a map, about 1.3 KB.
"""

from framework import MIB, Expectation, endpoints_ladder
from scenarios.rule_layout import layout

KIB = 1024
NFT_IDLE_BYTES = 11 * MIB
NFT_BYTES_PER_ENDPOINT = {"chains": 12.5 * KIB, "map": 1.6 * KIB}
"""Upper bounds: what was measured in November 2026 with nft 1.0.6 (11.4 and 1.3 KiB), plus a tenth."""


@endpoints_ladder(10, 100, 1_000, 10_000, 100_000)
def test_daemonset_service_on_a_2gib_node(fleet, real_node, daemonset_service, endpoints, kube_proxy):
    fleet.grow_to(endpoints)
    service = daemonset_service(endpoints=endpoints)
    node = real_node(memory="2GiB", kube_proxy=kube_proxy)
    measurement = node.program(service)
    bound_bytes = NFT_IDLE_BYTES + endpoints * NFT_BYTES_PER_ENDPOINT[layout(kube_proxy)]
    measurement.expect(
        Expectation(programming="programmed", nft_bytes_below=int(bound_bytes), ready_throughout=True)
    )
