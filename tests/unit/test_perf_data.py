"""PerfData as Kubernetes' dashboards read it: Go's names, one unit and one set of names for each label."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from test_analysis_outcomes import a_measure, evidences
from test_recorded_fates import evidence
from test_report_run_folder import TEST_ID, a_checked_result, a_result

from framework.analysis import derive_outcome
from framework.outcome import Evidence, RunResult
from framework.report import perf_data


def of_evidence(found: Evidence) -> RunResult:
    return a_checked_result(evidence=found, outcome=derive_outcome(found))


def test_the_layout_is_that_of_perftype() -> None:
    result = a_checked_result()
    assert result.outcome is not None
    outcome = msgspec.structs.replace(
        result.outcome, nft_bytes_peak=a_measure(111.5), unreclaimable_bytes_peak=a_measure(310, "lower")
    )
    written = msgspec.json.encode(perf_data([msgspec.structs.replace(result, outcome=outcome)]))
    labels = {
        "Test": TEST_ID,
        "Phase": "first_programming",
        "KubeProxy": "1.37.2",
        "Endpoints": "100000",
        "NodeLimitMiB": "2048",
        "Verdict": "pass",
    }
    memory = [("nft", 111.5, "exact"), ("node", 377.0, "exact"), ("unreclaimable", 310.0, "lower")]
    times = [("sync", 4.4), ("programmed", 6.0)]
    assert msgspec.json.decode(written) == {
        "version": "v1",
        "dataItems": [
            *(
                {
                    "data": {"Peak": mib},
                    "unit": "MiB",
                    "labels": labels | {"Metric": metric, "Bound": bound},
                }
                for metric, mib, bound in memory
            ),
            *(
                {"data": {"Elapsed": seconds}, "unit": "s", "labels": labels | {"Metric": metric}}
                for metric, seconds in times
            ),
        ],
        "labels": {"run": "20251115T101500Z-1a2b3c", "kernel": "6.18.0", "cgroup": "v1", "cpus": "2"},
    }


def test_what_was_not_seen_is_left_out_and_what_was_not_checked_says_so() -> None:
    killed = of_evidence(evidence("starved"))
    found = perf_data([a_result(), msgspec.structs.replace(killed, verdict=None)])
    metrics = [(item.labels["Metric"], item.labels.get("Bound")) for item in found.data_items]
    assert metrics == [("nft", "lower"), ("node", "exact"), ("unreclaimable", "lower")]
    assert {item.labels["Verdict"] for item in found.data_items} == {"unchecked"}


def test_without_measurements_there_are_no_figures() -> None:
    assert msgspec.json.encode(perf_data([])) == b'{"version":"v1","dataItems":[],"labels":{}}'


@settings(deadline=None, max_examples=50)
@given(st.lists(evidences, max_size=4))
def test_items_with_the_same_labels_have_the_same_unit_and_names(found: list[Evidence]) -> None:
    kinds: dict[frozenset[tuple[str, str]], tuple[str, frozenset[str]]] = {}
    for item in perf_data([of_evidence(each) for each in found]).data_items:
        kind = (item.unit, frozenset(item.data))
        assert kinds.setdefault(frozenset(item.labels.items()), kind) == kind
