"""What a Service costs, judged from recorded runs of many small ones."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from test_analysis_outcomes import a_measure, a_ruleset, an_evidence
from test_report_run_folder import a_checked_result

from framework.analysis import derive_outcome
from framework.claims import judge_claims, load_claims
from framework.outcome import RunResult
from framework.units import MIB

CHAINS, BYTES = "per-service-chains", "per-service-bytes"


def a_result(
    *, endpoints: int, nft_mib: float, chains: int, phase: str = "first_programming", **parameters: Any
) -> RunResult:
    outcome = msgspec.structs.replace(
        derive_outcome(an_evidence(phase=phase)),
        programming="programmed",
        endpoints=endpoints,
        nft_bytes_peak=a_measure(nft_mib),
        ruleset=msgspec.structs.replace(a_ruleset(endpoints), chains=chains),
    )
    result = a_checked_result(outcome=outcome)
    wanted = {"kube_proxy": "1.37.2", "shape": "plain", "services": 1} | parameters
    return msgspec.structs.replace(result, parameters=wanted)


TINY = a_result(endpoints=10, nft_mib=5, chains=20)


def many(**changes: Any) -> RunResult:
    wanted: dict[str, Any] = {
        "endpoints": 2000,
        "nft_mib": 25,
        "chains": 1021,
        "services": 1000,
        "shape": "1,000 Services x 2",
    }
    return a_result(**(wanted | changes))


def judged(*results: RunResult) -> dict[str, tuple[str, str]]:
    return {
        verdict.claim: (verdict.judgement, verdict.figure.text if verdict.figure else verdict.why)
        for verdict in judge_claims(load_claims(), results)
        if verdict.claim in (CHAINS, BYTES)
    }


def test_chains_are_those_beyond_an_idle_nodes() -> None:
    text = "1.0 chains for each of 1,000 Services with 2 endpoints"
    assert judged(TINY, many())[CHAINS] == ("confirmed", text)
    assert judged(TINY, many(chains=4021))[CHAINS][0] == "refuted"


def test_of_several_loads_the_biggest_is_a_lower_bound() -> None:
    judgement, text = judged(TINY, many(nft_mib=15))[BYTES]
    assert judgement == "not measured"
    assert text == ">=10.5 KB for each of 1,000 Services with 2 endpoints, which came in several loads"
    assert judged(TINY, many(nft_mib=25))[BYTES][0] == "refuted"


@pytest.mark.parametrize("phase", ["kube_proxy_restart", "cold_start"])
def test_where_all_came_in_one_load_it_is_exact(phase: str) -> None:
    found = judged(TINY, many(), many(phase=phase, nft_mib=15))[BYTES]
    each = 10 * MIB / 1000 / 1e3
    assert found == ("confirmed", f"{each:.1f} KB for each of 1,000 Services with 2 endpoints, in one load")


@pytest.mark.parametrize(
    ("results", "why"),
    [
        ([TINY], "no run had many small Services"),
        ([TINY, many(services=3)], "no run had many small Services"),
        ([TINY, many(endpoints=100_000)], "no run had many small Services"),
        ([TINY, many(proxy_mode="iptables")], "no run had many small Services"),
        ([many()], "no run with 10 endpoints was programmed"),
    ],
)
def test_what_is_missing_is_said(results: list[RunResult], why: str) -> None:
    assert judged(*results) == {CHAINS: ("not measured", why), BYTES: ("not measured", why)}
