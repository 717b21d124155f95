"""Which nft command needs the most memory: the load of the rules, or a listing of what the kernel holds?

Since k/k#137501 (1.36, and patch releases of 1.33 to 1.35) kube-proxy runs ``nft --json --terse list table``
at each sync. Of the old layout, a chain for each endpoint, that listing can outgrow the load itself.
`--all-cells` measures every pinned version.
"""

import pytest

from framework import Expectation

LIST_OUTGROWS_LOAD = {"1.34.2": False, "1.35.0": False, "1.35.4": True, "1.36.1": True, "1.37.2": False}
"""What was seen on 26 November 2026 with nft 1.0.6, of 10,000 endpoints: docs/how-a-node-dies.md."""


@pytest.mark.all_versions
def test_load_or_list(real_node, daemonset_service, kube_proxy):
    service = daemonset_service(endpoints=10_000, mode="endpointslices")
    node = real_node(memory="4GiB", kube_proxy=kube_proxy)
    node.program(service).expect(Expectation(programming="programmed", ready_throughout=True))
    resynced = node.resync(service)
    resynced.expect(Expectation(programming="programmed", ready_throughout=True))
    load, listing = resynced.outcome.nft_bytes_peak, resynced.outcome.nft_list_bytes_peak
    assert (listing is not None and listing.value > load.value) == LIST_OUTGROWS_LOAD[kube_proxy]
