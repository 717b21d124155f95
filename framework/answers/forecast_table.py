"""A forecast, for eyes: the parts of a node by kube-proxy, when nodes die, and how predictions fared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from framework.analysis.forecast import (
    ENDPOINTS_MAX,
    Endurance,
    Load,
    Model,
    Prediction,
    Quantity,
    charged,
    endurance_of,
    needed,
    predict,
    unreclaimable,
)
from framework.answers.forecast import Check, ForecastResult
from framework.report import basis_lines
from framework.units import mib, short_count

_WORDS: Final[dict[str, str]] = {
    "nft": "nft, loading",
    "nft_list": "nft, listing",
    "kube_proxy": "kube-proxy, anonymous",
    "kernel": "kernel memory",
    "others": "containerd, kubelet",
    "page_cache": "page cache",
    "sync": "sync",
    "unreclaimable": "node, unreclaimable",
    "node": "node, all charged",
    "needed": "worst phase, unreclaimable",
}
_PARTS: Final[tuple[Quantity, ...]] = (
    "nft",
    "nft_list",
    "kube_proxy",
    "kernel",
    "others",
    "page_cache",
    "sync",
)


@dataclass(frozen=True)
class ForecastTable:
    """A rich renderable of a forecast. ``memories`` and ``ballast_bytes`` are of the nodes that may die."""

    result: ForecastResult
    memories: Sequence[int]
    ballast_bytes: int
    ballast_words: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del options
        style = box.ROUNDED if console.is_terminal else box.ASCII
        for model in self.result.models:
            yield _model_table(model, self.result.target, style)
        yield _endurance_table(
            self.result.models, self.memories, self.ballast_bytes, self.ballast_words, style
        )
        if self.result.checks:
            yield _check_table(self.result.checks, self.result.target, style)
        for line in distrust_lines(self.result.models, self.result.target):
            yield Text(line, "yellow")
        for line in _notes(self.result):
            yield Text(line, "dim")


def _model_table(model: Model, target: int, style: box.Box) -> Table:
    load = Load(endpoints=target, service_ports=1)
    high = max(sample.load.endpoints for sample in model.samples)
    table = Table(
        box=style,
        title=f"kube-proxy {model.kube_proxy}, one Service, MiB",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("")
    for header in (
        "KiB per\nendpoint",
        "KiB per\nService port",
        f"at {short_count(high)}\n(measured)",
        f"at {short_count(target)}",
        "interval",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    for part in _PARTS:
        line, found = model.line(part), predict(model, part, load)
        if line is None or found is None:
            continue
        if part == "sync":
            slopes = (f"{line.per_endpoint * 1000:.2f} ms", f"{line.per_service_port * 1000:.2f} ms")
        else:
            slopes = tuple(
                f"{slope / 1024:.2f}" if slope else "-"
                for slope in (line.per_endpoint, line.per_service_port)
            )  # type: ignore[assignment]
        table.add_row(_WORDS[part], *slopes, _largest(model, part, high), *_predicted(found, part))
    sums = {
        "unreclaimable": unreclaimable(model, load),
        "node": charged(model, load),
        "needed": needed(model, load),
    }
    for words, found in sums.items():
        if found is not None:
            table.add_row(_WORDS[words], "", "", "", *_predicted(found, words), style="bold")
    return table


def _largest(model: Model, part: Quantity, endpoints: int) -> str:
    figures = [
        each.figure(part) for each in model.samples if each.load == Load(endpoints=endpoints, service_ports=1)
    ]
    known = [figure for figure in figures if figure is not None]
    return describe_figure(sum(known) / len(known), part) if known else "-"


def _predicted(found: Prediction, what: str) -> tuple[str, str]:
    return describe_figure(
        found.value, what
    ), f"{describe_figure(found.low, what)} to {describe_figure(found.high, what)}"


def describe_figure(value: float, what: str) -> str:
    """``1,106`` MiB, or ``11.60 s`` for a sync."""
    return f"{value:.2f} s" if what == "sync" else mib(round(value))


def _endurance_table(
    models: Sequence[Model], memories: Sequence[int], ballast_bytes: int, ballast_words: str, style: box.Box
) -> Table:
    table = Table(
        box=style,
        title=f"At how many endpoints of one Service a node dies, ballast {ballast_words}",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("node")
    for model in models:
        table.add_column(f"kube-proxy {model.kube_proxy}", justify="right", no_wrap=True)
    for memory_bytes in memories:
        found = [
            endurance_of(model, memory_bytes=memory_bytes, ballast_bytes=ballast_bytes) for model in models
        ]
        table.add_row(f"{mib(memory_bytes)} MiB", *map(describe_endurance, found))
    return table


def describe_endurance(found: Endurance | None) -> str:
    """``64,000 (57,000 to 66,000)``."""
    if found is None:
        return "unknown"
    return f"{_count(found.endpoints)} ({_count(found.earliest)} to {_count(found.latest)})"


def _count(endpoints: int | None) -> str:
    if endpoints is None:
        return f"> {short_count(ENDPOINTS_MAX)}"
    digits = max(0, len(str(endpoints)) - 3)
    return f"{round(endpoints, -digits):,}"


def _check_table(checks: Sequence[Check], target: int, style: box.Box) -> Table:
    table = Table(
        box=style, title=f"Predicted and measured at {target:,}", title_justify="left", title_style="bold"
    )
    table.add_column("kube-proxy")
    table.add_column("")
    for header in ("predicted", "interval", "measured", "off"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("")
    for check in checks:
        table.add_row(
            check.kube_proxy,
            _WORDS[check.what],
            *_predicted(check.predicted, check.what),
            describe_figure(check.found, check.what),
            f"{check.off:+.1%}",
            Text("inside", "green") if check.covered else Text("OUTSIDE", "bold red"),
        )
    return table


def distrust_lines(models: Sequence[Model], target: int) -> Iterator[str]:
    """Every reason not to rely on a prediction."""
    load = Load(endpoints=target, service_ports=1)
    for model in models:
        named: list[tuple[str, Prediction | None]] = [(part, predict(model, part, load)) for part in _PARTS]
        known = {why for _, found in named for why in (found.distrust if found is not None else ())}
        named.append(("needed", needed(model, load)))
        for what, found in named:
            for why in found.distrust if found is not None else ():
                if what != "needed" or why not in known:
                    yield f"Not to be trusted: kube-proxy {model.kube_proxy}, {_WORDS[what]}: {why}."


def _notes(result: ForecastResult) -> Iterator[str]:
    yield (
        "Every figure is of a cold start: kube-proxy starts with the Service there. The upper end of the "
        "node's interval also holds for endpoints that come while it runs: its heap was up to half larger."
    )
    yield (
        "Services' ports and endpoints as kube-proxy counts them: an endpoint of a Service with two ports "
        "counts twice. MiB of processes are anonymous memory, nft's all that is resident."
    )
    yield from basis_lines([result.environment], result.fidelity)
