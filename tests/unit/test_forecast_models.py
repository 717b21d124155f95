"""The models that come with kilonode: how far off they were, and that the documentation says just that."""

from __future__ import annotations

from pathlib import Path

from benchmarks.forecast import error_table
from framework.analysis.forecast import fit
from framework.answers import shipped_forecasts
from framework.binaries import Binaries

PAGE = Path(__file__).parents[2] / "docs" / "answers.md"
NODE_OFF_MAX = 0.05
USED_FOR_THE_MODEL = {"1.35.0", "1.37.2"}


def test_there_is_one_for_each_kube_proxy_that_is_measured_by_default() -> None:
    known = {model.kube_proxy for answer in shipped_forecasts() for model in answer.models}
    assert known >= set(Binaries().default_kube_proxies())
    assert known > USED_FOR_THE_MODEL


def test_memory_at_100_000_was_predicted_to_five_percent_and_inside_the_interval() -> None:
    checks = [check for answer in shipped_forecasts() for check in answer.checks]
    assert {check.kube_proxy for check in checks} > USED_FOR_THE_MODEL
    assert {answer.target for answer in shipped_forecasts()} == {100_000}
    for check in checks:
        assert check.covered, check
        if check.what in {"nft", "unreclaimable", "node"}:
            assert abs(check.off) < NODE_OFF_MAX, check


def test_it_is_what_its_samples_say() -> None:
    for answer in shipped_forecasts():
        for model in answer.models:
            again = fit(model.samples, kube_proxy=model.kube_proxy, nft=model.nft, kernel=model.kernel)
            for line, fitted in zip(model.lines, again.lines, strict=True):
                assert abs(line.per_endpoint - fitted.per_endpoint) <= 1e-6 * abs(line.per_endpoint)


def test_the_page_has_the_errors_as_they_were() -> None:
    assert error_table(shipped_forecasts()) in PAGE.read_text()
