"""When a cluster hits it: cold starts at small sizes, a model of each kube-proxy, what it says of large ones.

All kube-proxies are measured at the same moments, each on a node of its own, so that the whole takes no
longer than one. Endpoints come as EndpointSlices alone, for which no fake nodes are needed. Sizes rise,
because what a node's kubelet and containerd once took they keep. The largest is measured again and again: a
slope is only as good as its ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from framework.analysis.forecast import (
    ForecastSample,
    Load,
    Model,
    Prediction,
    Quantity,
    charged,
    fit,
    predict,
    unreclaimable,
)
from framework.answers.answer import Answer
from framework.errors import BadInputError, KilonodeError
from framework.lab import Lab
from framework.measurement import Measurement, RealNode, Watch, cold_start_together, resync_together
from framework.outcome import Environment, FidelityItem, Record
from framework.spec import RealNodeSpec, Spec, require_count
from framework.units import GIB, short_count
from framework.versioned_file import load_versioned, now_utc, this_command, write_versioned
from framework.workload import Workload

FORMAT: Final = 1
FORECAST_FILE: Final = "forecast.json"
SHIPPED: Final = Path(__file__).parent / "models"
SIZE_MIN: Final = 2000
SIZE_MAX: Final = 20_000
_SHARES: Final = (0.2, 0.4, 0.6, 1.0, 1.0, 1.0)
"""Endpoints of each cold start, of the largest. Below 1,000 kube-proxy's heap is Go's first 4 MiB."""
_PORTS_SHARE: Final = 0.4
_SERVICES_SHARE: Final = 0.05
NODE_MEMORY_BYTES: Final = 4 * GIB
CELL_TIMEOUT_S: Final = 300.0


class ForecastAsked(Spec, frozen=True, kw_only=True):
    """What is measured, up to ``endpoints_high``, and what is predicted.

    ``check``: the predicted size is measured too. Raises BadInputError for sizes that tell too little.
    """

    kube_proxies: tuple[str, ...]
    target: int
    endpoints_high: int = 5000
    check: bool = False

    def __post_init__(self) -> None:
        require_count(self.target, where="endpoints")
        if not SIZE_MIN <= self.endpoints_high <= SIZE_MAX:
            raise BadInputError(
                f"{self.endpoints_high:,} is outside {SIZE_MIN:,} to {SIZE_MAX:,}: smaller sizes drown in "
                "what a node takes anyhow, larger ones are no forecast",
                where="up-to",
                remedy="give a size inside these bounds",
            )


class Check(Record, frozen=True, kw_only=True):
    """One figure as it was predicted and as it was found, in bytes or seconds."""

    kube_proxy: str
    what: str
    predicted: Prediction
    found: float

    @property
    def off(self) -> float:
        """By which share the prediction was too high."""
        return self.predicted.value / self.found - 1

    @property
    def covered(self) -> bool:
        return self.predicted.low <= self.found <= self.predicted.high


class ForecastResult(Answer, frozen=True, kw_only=True):
    """The models, and how their predictions fared where that was checked."""

    target: int
    models: tuple[Model, ...]
    checks: tuple[Check, ...]
    environment: Environment | None
    fidelity: tuple[FidelityItem, ...]


def load_forecast(path: Path) -> ForecastResult:
    """Read what ``kilonode forecast --json`` wrote. Raises BadInputError where it can't."""
    file = path / FORECAST_FILE if path.is_dir() else path
    return load_versioned(file, ForecastResult, formats=(FORMAT,), made_by="`kilonode forecast --json`")


def shipped_forecasts() -> tuple[ForecastResult, ...]:
    """What comes with kilonode: models of some kube-proxies, and how they fared at 100,000 endpoints."""
    return tuple(load_forecast(file) for file in sorted(SHIPPED.glob("*.json")))


@dataclass(frozen=True)
class _Cell:
    """One cold start; ``listing``: a full resync follows, whose nft lists the rules that are there."""

    load: Load
    services: Callable[[Lab], Workload]
    words: str
    listing: bool = False


def make_forecast(lab: Lab, asked: ForecastAsked, *, on_cell: Callable[[str], object] = id) -> ForecastResult:
    """Measure, fit, and check if asked; the answer is in the run folder too.

    Raises KilonodeError where a node was not programmed at a small size.
    """
    cells = tuple(_cells(asked))
    total = len(cells) + asked.check
    lab.reporter.phase_started("trials", f"cold starts up to {asked.endpoints_high:,} endpoints", total)
    nodes = [
        RealNode.start(
            lab,
            RealNodeSpec(memory_bytes=NODE_MEMORY_BYTES, kube_proxy=version, client=False),
            test_id=f"forecast-{version}",
            repro=this_command(),
        )
        for version in asked.kube_proxies
    ]
    try:
        samples: list[list[ForecastSample]] = [[] for _ in nodes]
        for done, cell in enumerate(cells, start=1):
            for found, sample in zip(samples, _measure(lab, nodes, cell), strict=True):
                found.append(sample)
            lab.reporter.phase_advanced("trials", done)
            on_cell(cell.words)
        environment = lab.environment()
        models = tuple(
            _fitted(version, found, environment)
            for version, found in zip(asked.kube_proxies, samples, strict=True)
        )
        checks: tuple[Check, ...] = ()
        if asked.check:
            cell = _plain(asked.target)
            found = _measure(lab, nodes, cell)
            checks = tuple(
                check
                for model, sample, node in zip(models, found, nodes, strict=True)
                for check in _checks(model, sample, node.measurements[-1])
            )
            on_cell(cell.words)
        result = ForecastResult(
            format=FORMAT,
            made_utc=now_utc(),
            command=this_command(),
            target=asked.target,
            models=models,
            checks=checks,
            environment=environment,
            fidelity=nodes[-1].measurements[-1].result.fidelity,
        )
    finally:
        for node in nodes:
            node.stop()
    write_versioned(lab.run_folder.path / FORECAST_FILE, result)
    return result


def _cells(asked: ForecastAsked) -> Iterator[_Cell]:
    high = asked.endpoints_high
    sizes = [int(share * high) for share in _SHARES]
    for number, size in enumerate(sizes):
        yield _plain(size, listing=number in {0, len(sizes) - 1})
        if number == 0:
            yield _many(int(_SERVICES_SHARE * high))
        if number == 1:
            yield _two_ports(int(_PORTS_SHARE * high))


def _plain(endpoints: int, *, listing: bool = False) -> _Cell:
    return _Cell(
        Load(endpoints=endpoints, service_ports=1),
        lambda lab: lab.service(endpoints=endpoints),
        f"{short_count(endpoints)} endpoints",
        listing,
    )


def _two_ports(endpoints: int) -> _Cell:
    return _Cell(
        Load(endpoints=2 * endpoints, service_ports=2),
        lambda lab: lab.service(endpoints=endpoints, ports=(80, 443)),
        f"{short_count(endpoints)} endpoints x 2 ports",
    )


def _many(count: int) -> _Cell:
    return _Cell(
        Load(endpoints=2 * count, service_ports=count),
        lambda lab: lab.many_services(count=count, endpoints_each=2),
        f"{count} Services x 2 endpoints",
    )


def _measure(lab: Lab, nodes: Sequence[RealNode], cell: _Cell) -> list[ForecastSample]:
    service = cell.services(lab)
    try:
        measured = cold_start_together(nodes, service, Watch(timeout_s=CELL_TIMEOUT_S))
        listed = resync_together(nodes, service, Watch(timeout_s=CELL_TIMEOUT_S)) if cell.listing else None
    finally:
        lab.release(service)
    return [
        _sample(cell, each, listed[number] if listed is not None else None)
        for number, each in enumerate(measured)
    ]


def _sample(cell: _Cell, measurement: Measurement, listed: Measurement | None) -> ForecastSample:
    """Raises KilonodeError where not all parts were seen."""
    outcome, evidence = measurement.outcome, measurement.result.evidence
    cgroup = evidence.cgroup if evidence is not None else None
    held: defaultdict[str, list[int]] = defaultdict(list)
    for track in evidence.tracks if evidence is not None else ():
        held[track.comm] += track.anonymous_bytes
    nft, charged_peak, needed = (
        outcome.nft_bytes_peak,
        outcome.charged_bytes_peak,
        outcome.unreclaimable_bytes_peak,
    )
    if outcome.disturbed:
        raise KilonodeError(
            f"{cell.words} can't be a sample: {'; '.join(outcome.disturbed)}",
            where=measurement.folder.path.name,
            remedy="run it again",
        )
    complete = outcome.programming == "programmed" and nft is not None and nft.bound != "lower"
    parts = {"kube-proxy", "kubelet", "containerd"} <= held.keys()
    if not complete or not parts or cgroup is None or charged_peak is None or needed is None or nft is None:
        raise KilonodeError(
            f"{cell.words} did not come out as a sample: {outcome.programming}, nft's peak "
            f"{'unknown' if nft is None else nft.bound}",
            where=measurement.folder.path.name,
            remedy="run it again on a machine with less other load",
        )
    list_peak = listed.outcome.nft_list_bytes_peak if listed is not None else None
    return ForecastSample(
        load=cell.load,
        nft_bytes=nft.value,
        kube_proxy_bytes=max(held["kube-proxy"]),
        kernel_bytes=cgroup.end.kernel_bytes,
        others_bytes=round(median(held["kubelet"]) + median(held["containerd"])),
        page_cache_bytes=max(0, charged_peak.value - needed.value),
        nft_list_bytes=list_peak.value if list_peak is not None else None,
        sync_s=outcome.sync_s,
    )


def _fitted(version: str, samples: Sequence[ForecastSample], environment: Environment) -> Model:
    nft = next((part.version for part in environment.components if part.name == "nft"), "unknown")
    return fit(samples, kube_proxy=version, nft=nft, kernel=environment.kernel)


def _checks(model: Model, found: ForecastSample, measurement: Measurement) -> Iterator[Check]:
    outcome = measurement.outcome
    parts: tuple[Quantity, ...] = ("nft", "kube_proxy", "kernel", "sync")
    pairs: list[tuple[str, Prediction | None, float | None]] = [
        (part, predict(model, part, found.load), found.figure(part)) for part in parts
    ]
    for what, prediction, measure in (
        ("unreclaimable", unreclaimable(model, found.load), outcome.unreclaimable_bytes_peak),
        ("node", charged(model, found.load), outcome.charged_bytes_peak),
    ):
        pairs.append((what, prediction, float(measure.value) if measure is not None else None))
    for what, prediction, truth in pairs:
        if prediction is not None and truth:
            yield Check(kube_proxy=model.kube_proxy, what=what, predicted=prediction, found=float(truth))
