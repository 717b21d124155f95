"""When a node's memory is full, whom does the kernel kill, and what is left of the node?

The kernel kills the process with the highest badness: what it holds, plus oom_score_adj thousandths of the
limit. In production kubelet, containerd, kube-proxy and its nft all have -999, so whatever else runs on the
node dies before them, and among them nft, the largest. A few cells decide:

* a BestEffort pod is killed in nft's place, and nft fits into what it held;
* a Guaranteed pod is as safe as the daemons: if it is smaller than nft, nft is killed at each sync, for ever,
  and the node stays Ready;
* a kubelet without production's score (started by hand, or by a unit that forgot it) is killed first, and the
  node turns NotReady;
* the same kubelet, started again after 10 s as by its unit, is killed at each sync; the node stays Ready, as
  its lease never lacks a renewal for 40 s;
* below the limit at which anybody is killed, a node that pays for its daemons' text reclaims that text again
  and again: every daemon lives and none gets on, the lease expires, and the node turns NotReady.

Two of them boot into a cluster that has the Service: in a running one the first slices to arrive would fit,
and the rules of these endpoints go on serving. A sync that fails when kube-proxy starts is not tried again by
itself: only what comes after it goes through the runner that retries.

10,000 endpoints and two ports let kube-proxy 1.35 write 20,000 endpoint chains, for which nft needs 230 MiB.
`--all-cells` measures the whole matrix of policy, ballast and limit.
"""

from itertools import product

import pytest

from framework import MIB, Ballast, Expectation, VerdictError, Watch

ENDPOINTS = 10_000
PORTS = (80, 443)
KUBE_PROXY = "1.35.0"
DEAR_ENDPOINTS = "kube-proxy up to 1.35 needs about 11 KiB of nft memory for each endpoint and port"
DAEMONS_AND_NFT_BYTES = 320 * MIB
"""Too little for kubelet, containerd, kube-proxy and the nft that all endpoints need, when the executables'
pages are the host's."""


@pytest.fixture
def service(fleet, daemonset_service):
    """Without a fleet the control plane can afford production's grace period; slices need no fakes."""
    fleet.set_to(0)
    return daemonset_service(endpoints=ENDPOINTS, mode="endpointslices", ports=PORTS)


def ballast(kind, mib, content="anonymous"):
    return Ballast(name=kind, kind=kind, memory_bytes=mib * MIB, content=content)


def test_a_besteffort_pod_dies_in_nfts_place(service, real_node):
    node = real_node(
        memory="620MiB", kube_proxy=KUBE_PROXY, text="host", ballast=[ballast("besteffort", 300)]
    )
    node.program(service).expect(
        Expectation(
            programming="programmed",
            oom_victims=("besteffort",),
            fates=("workload_killed", "recovered"),
            no_fates=("nft_killed", "silent_outage"),
            served="fully",
            ready_throughout=True,
            known_bad=DEAR_ENDPOINTS,
        )
    )


def test_a_guaranteed_pod_outlives_nft(service, real_node):
    node = real_node(
        memory="470MiB", kube_proxy=KUBE_PROXY, text="host", ballast=[ballast("guaranteed", 150)]
    )
    node.cold_start(service, Watch(failures=1)).expect(
        Expectation(
            programming="nft_killed",
            oom_victims=("nft",),
            fates=("nft_killed", "silent_outage"),
            served="not",
            ready_throughout=True,
            known_bad=DEAR_ENDPOINTS,
        )
    )


def test_a_kubelet_without_its_score_dies_and_the_node_turns_not_ready(service, real_node):
    node = real_node(memory="320MiB", kube_proxy=KUBE_PROXY, text="host", oom_policy={"kubelet": 0})
    measurement = node.cold_start(service, Watch(until_not_ready=True))
    measurement.expect(
        Expectation(
            oom_victims=("kubelet", "nft"),
            fates=("kubelet_killed", "nft_killed", "not_ready"),
            no_fates=("starved", "recovered"),
            served="not",
            ready_at_end=False,
            known_bad="a kubelet at 0 has half the limit more of badness than an nft at -999",
        )
    )


def test_a_kubelet_that_starts_again_dies_again_and_the_node_stays_ready(service, real_node):
    node = real_node(
        memory="320MiB", kube_proxy=KUBE_PROXY, text="host", oom_policy={"kubelet": 0}, restart="production"
    )
    measurement = node.program(service, Watch(until_s=45))
    measurement.expect(
        Expectation(
            first_victim="kubelet",
            fates=("kubelet_killed", "nft_killed"),
            no_fates=("not_ready", "starved", "recovered"),
            ready_throughout=True,
            known_bad="kubelet is back before its lease of 40 s expires, again and again",
        )
    )
    (loop,) = measurement.outcome.crash_loops
    assert loop.name == "kubelet"
    assert loop.ends >= 2
    assert loop.period_s == pytest.approx(30, abs=5)


STARVES_WITH = {"embedded": "160MiB", "existing": "160MiB", "kind": "180MiB"}
"""A worker of kind's has systemd and a shim besides: with 160 MiB kube-proxy is killed there."""


def test_a_node_that_pays_for_its_text_starves_and_turns_not_ready(
    pytestconfig, fleet, daemonset_service, real_node
):
    fleet.set_to(0)
    service = daemonset_service(endpoints=ENDPOINTS, mode="endpointslices")
    memory = STARVES_WITH[pytestconfig.getoption("--cluster")]
    node = real_node(memory=memory, kube_proxy=KUBE_PROXY)
    measurement = node.program(service, Watch(until_not_ready=True))
    measurement.expect(
        Expectation(
            fates=("starved", "not_ready"),
            no_fates=("kubelet_killed", "containerd_killed", "kube_proxy_killed", "recovered"),
            known_bad="file pages are reclaimed before anybody is killed, the daemons' text too",
        )
    )


POLICIES = {"production": "production", "flat": "flat", "kubelet-0": {"kubelet": 0}}
BALLASTS = {
    "none": [],
    **{kind: [ballast(kind, 150)] for kind in ("system", "guaranteed", "burstable", "besteffort")},
    "page-cache": [ballast("burstable", 150, "page_cache")],
}
LARGEST_DAEMON = "nft"
NOBODY = None


def first_victims(daemon):
    """For each ballast, where ``daemon`` is the first of those that run without any."""
    return {
        "none": daemon,
        "guaranteed": daemon,
        "system": "system",
        "burstable": "burstable",
        "besteffort": "besteffort",
        "page-cache": NOBODY,
    }


FIRST_VICTIM = {
    "production": first_victims(LARGEST_DAEMON),
    "flat": {**dict.fromkeys(BALLASTS, LARGEST_DAEMON), "page-cache": NOBODY},
    "kubelet-0": first_victims("kubelet"),
}
"""By the kernel's rule. A daemon at 0 is outweighed only by another one at 0 that is larger, or by a pod.
Page cache is given up before anybody is killed, and nft fits into what it held."""
SPARE_BYTES = {"tight": 0, "tighter": -30 * MIB}
MATRIX = list(product(POLICIES, BALLASTS, SPARE_BYTES))


def expected_of(first_victim):
    if first_victim is NOBODY:
        return Expectation(programming="programmed", oom_victims=(), served="fully", ready_throughout=True)
    return Expectation(first_victim=first_victim, known_bad=DEAR_ENDPOINTS)


@pytest.mark.all_cells
@pytest.mark.parametrize(("policy", "held", "spare"), MATRIX, ids=["-".join(cell) for cell in MATRIX])
def test_the_matrix(service, real_node, policy, held, spare):
    """Who dies first, in each cell. Where the scores' cap may have chosen the victim, it is unknown."""
    held_bytes = sum(each.memory_bytes for each in BALLASTS[held])
    node = real_node(
        memory=str(DAEMONS_AND_NFT_BYTES + held_bytes + SPARE_BYTES[spare]),
        kube_proxy=KUBE_PROXY,
        text="host",
        ballast=BALLASTS[held],
        oom_policy=POLICIES[policy],
    )
    measurement = node.program(service, Watch(failures=2, until_not_ready=True))
    try:
        measurement.expect(expected_of(FIRST_VICTIM[policy][held]))
    except VerdictError as error:
        if error.verdict.result == "unknown":
            pytest.skip("; ".join(error.verdict.reasons))
        raise
