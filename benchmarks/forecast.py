"""How the models that come with kilonode fared, as Markdown: ``python -m benchmarks.forecast``."""

from __future__ import annotations

from collections.abc import Sequence

from framework.answers import Check, ForecastResult, shipped_forecasts
from framework.answers.forecast_table import describe_figure
from framework.spec import version_order


def error_table(answers: Sequence[ForecastResult]) -> str:
    """Markdown: each figure that was predicted and measured, by kube-proxy."""
    lines = [
        "| kube-proxy | | predicted | interval | measured | off | measured on |",
        "|---|---|---|---|---|---|---|",
    ]
    checks = [(check, answer) for answer in answers for check in answer.checks]
    for check, answer in sorted(checks, key=lambda pair: version_order(pair[0].kube_proxy)):
        lines.append(_row(check, answer))
    return "\n".join(lines)


def _row(check: Check, answer: ForecastResult) -> str:
    predicted, low, high, found = (
        describe_figure(value, check.what)
        for value in (check.predicted.value, check.predicted.low, check.predicted.high, check.found)
    )
    off = f"{check.off:+.1%}" if check.covered else f"**{check.off:+.1%}, outside**"
    return (
        f"| {check.kube_proxy} | {check.what.replace('_', '-')} | {predicted} | {low} to {high} | {found} "
        f"| {off} | {answer.made_utc[:10]} |"
    )


if __name__ == "__main__":
    print(error_table(shipped_forecasts()))
