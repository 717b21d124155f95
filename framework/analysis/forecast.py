"""What a node will take in a larger cluster, by straight lines through what it takes in small ones.

A node's memory is the sum of parts that grow by different laws, so each is fitted alone. nft and the kernel's
ruleset grow with every endpoint and every port of a Service that kube-proxy programs, and nothing else in
them is large: a line through small sizes meets 100,000 endpoints to a few percent. kube-proxy's heap grows so
too, but what is garbage in it follows the steps of Go's collector. While the heap is small those steps make
it grow faster than it does later, which ``HEAP_AT_SCALE`` takes into account. containerd, kubelet and the
page cache do not grow with endpoints.

Interval: Student's t for the fit (95 %), and an allowance for each part for what the line does not know, as
independent errors. Every figure is of a cold start, which is what a node pays at boot;
``ARRIVAL_HEAP_SHARE`` is how much more it was when the endpoints came to a kube-proxy that ran.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from framework.analysis.limit_search import RESERVE_BYTES
from framework.lazy import LazyModule
from framework.outcome import Record

if TYPE_CHECKING:
    import numpy
    import scipy.stats as scipy_stats
else:
    numpy, scipy_stats = LazyModule("numpy"), LazyModule("scipy.stats")

Quantity = Literal["nft", "nft_list", "kube_proxy", "kernel", "others", "page_cache", "sync"]
QUANTITIES: Final[tuple[Quantity, ...]] = get_args(Quantity)
Colour = Literal["green", "amber", "red", "unknown"]

CONFIDENCE: Final = 0.95
CHAINS_BYTES: Final = 4096
"""nft's memory for each endpoint beyond which an endpoint is a chain of its own (11 KiB, up to 1.35) and not
an element of a map (1.3 KiB)."""
HEAP_AT_SCALE: Final = {"chains": 0.78, "map": 0.88}
"""What kube-proxy's anonymous memory grows by for each endpoint from 5,000 to 100,000, as a share of what it
grows by up to 5,000: 0.76 and 0.78 with 1.35.0, 0.85 and 0.92 with 1.37.2 (27 November 2026)."""
ARRIVAL_HEAP_SHARE: Final = 0.5
"""How much larger kube-proxy's heap was at most where 100,000 endpoints came while it ran: 42 % with 1.35.0
(1,695 MiB of unreclaimable memory and not 1,557), 49 % with 1.37.2 (427 and not 346; README)."""
_ALLOWANCE: Final[Mapping[Quantity, float]] = {
    "nft": 0.02,
    "nft_list": 0.05,
    "kube_proxy": 0.12,
    "kernel": 0.20,
    "others": 0.15,
    "page_cache": 0.10,
    "sync": 1.0,
}
"""What a line may be off beyond its own error, as a share: kube-proxy's by steps of its heap, the kernel's by
tables that double, times by 2."""
_CONSTANT: Final[frozenset[Quantity]] = frozenset({"others", "page_cache"})
_OF_NODE: Final[tuple[Quantity, ...]] = ("kube_proxy", "kernel", "others")
PLAIN_PORTS_MAX: Final = 8
"""Service ports of a sample that tells what endpoints cost: so few are nothing beside them."""
PORT_DEVIATION: Final = 0.25
"""Standard deviation of what a port of a Service costs, as a share: the tables of kube-proxy 1.37's maps grow
by doubling, so 1,000 Services cost two thirds of what twice 500 do."""
CURVED_SHARE: Final = 0.10
_CURVED_LEVEL: Final = 0.995
_ROUNDING_SHARE: Final = 1e-9
WIDE_SHARE: Final = 0.25
"""A node's interval that is wider than this share to either side says too little."""
UNTESTED_SHARE: Final = 0.15
"""Of a line through as many samples as it has coefficients, which nothing contradicts: nft lists twice."""
ENDPOINTS_MAX: Final = 2_000_000
AMBER_SHARE: Final = 0.75
"""A node that needs more than this share of its memory is warned of before its interval says so."""


class Load(Record, frozen=True, kw_only=True):
    """What is programmed on a node, as kube-proxy counts: Services' ports, and the endpoints of each."""

    endpoints: int
    service_ports: int


class ForecastSample(Record, frozen=True, kw_only=True):
    """One cold start. ``nft_list_bytes`` is the peak of nft that read the rules back; None where none did.

    ``others_bytes`` are containerd and kubelet, in the middle of what they held, ``kernel_bytes`` the
    kernel's memory in the end. The others are peaks, kube-proxy's of anonymous memory, nft's of all that was
    resident.
    """

    load: Load
    nft_bytes: int
    kube_proxy_bytes: int
    kernel_bytes: int
    others_bytes: int
    page_cache_bytes: int
    nft_list_bytes: int | None = None
    sync_s: float | None = None

    def figure(self, quantity: Quantity) -> float | None:
        if quantity == "sync":
            return self.sync_s
        found: int | None = getattr(self, f"{quantity}_bytes")
        return found


class Line(Record, frozen=True, kw_only=True):
    """``intercept + per_endpoint * endpoints + per_service_port * service_ports``, in bytes or seconds.

    ``covariance`` is that of these three. ``distrust`` says why it is none to rely on; empty for a good one.
    """

    quantity: Quantity
    intercept: float
    per_endpoint: float
    per_service_port: float
    covariance: tuple[tuple[float, float, float], ...]
    freedom: int
    endpoints_high: int
    distrust: str = ""

    def at(self, load: Load) -> float:
        """The line itself."""
        grown = self.per_endpoint * load.endpoints + self.per_service_port * load.service_ports
        return self.intercept + grown

    def error(self, load: Load) -> float:
        """Half of the interval for the line's own error at ``load``."""
        place = (1.0, float(load.endpoints), float(load.service_ports))
        variance = sum(
            place[row] * place[column] * self.covariance[row][column]
            for row in range(3)
            for column in range(3)
        )
        if self.freedom < 1:
            return UNTESTED_SHARE * abs(self.at(load))
        return float(scipy_stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom)) * math.sqrt(max(0.0, variance))


class Model(Record, frozen=True, kw_only=True):
    """What one kube-proxy's nodes take, with the programs and kernel that this holds for."""

    kube_proxy: str
    nft: str
    kernel: str
    samples: tuple[ForecastSample, ...]
    lines: tuple[Line, ...]

    def line(self, quantity: Quantity) -> Line | None:
        return next((line for line in self.lines if line.quantity == quantity), None)


class Prediction(Record, frozen=True, kw_only=True):
    """A figure with its interval, in bytes or seconds; ``distrust`` is every reason not to rely on it."""

    value: float
    low: float
    high: float
    distrust: tuple[str, ...] = ()


class Endurance(Record, frozen=True, kw_only=True):
    """At how many endpoints a node dies: expected, and from when to when.

    None is more than ``ENDPOINTS_MAX``; 0 is at once.
    """

    memory_bytes: int
    ballast_bytes: int
    endpoints: int | None
    earliest: int | None
    latest: int | None


def fit(samples: Sequence[ForecastSample], *, kube_proxy: str, nft: str, kernel: str) -> Model:
    """The model of ``samples``, which are of one kube-proxy."""
    lines = (_line(quantity, samples) for quantity in QUANTITIES)
    return Model(
        kube_proxy=kube_proxy,
        nft=nft,
        kernel=kernel,
        samples=tuple(samples),
        lines=tuple(line for line in lines if line is not None),
    )


def _line(quantity: Quantity, samples: Sequence[ForecastSample]) -> Line | None:
    """Endpoints from the samples of one Service, its ports from what the others have beyond that.

    None where too few sizes were seen to tell: what grows needs two. Nothing becomes less by endpoints: where
    a line says so it is noise around a constant.
    """
    known = [(sample.load, figure) for sample in samples if (figure := sample.figure(quantity)) is not None]
    plain = [(load, float(figure)) for load, figure in known if load.service_ports <= PLAIN_PORTS_MAX]
    varies = quantity not in _CONSTANT
    if len({load.endpoints for load, _ in plain}) < 1 + varies:
        return None
    counts = numpy.array([float(load.endpoints) for load, _ in plain])
    figures = numpy.array([figure for _, figure in plain])
    found, covariance, freedom = _least_squares(
        numpy.vander(counts, 2 if varies else 1, increasing=True), figures
    )
    if varies and found[1] < 0:
        varies = False
        found, covariance, freedom = _least_squares(numpy.vander(counts, 1), figures)
    intercept, per_endpoint = (found[0], found[1]) if varies else (found[0], 0.0)
    per_port, deviation = _per_service_port(quantity, known, intercept, per_endpoint)
    corner = covariance[1] if varies else [0.0, 0.0]
    return Line(
        quantity=quantity,
        intercept=intercept,
        per_endpoint=per_endpoint,
        per_service_port=per_port,
        covariance=(
            (covariance[0][0], corner[0], 0.0),
            (corner[0], corner[1], 0.0),
            (0.0, 0.0, deviation**2),
        ),
        freedom=freedom,
        endpoints_high=int(max(counts)),
        distrust=_curved(counts, figures) if varies else "",
    )


def _per_service_port(
    quantity: Quantity,
    known: Sequence[tuple[Load, float]],
    intercept: float,
    per_endpoint: float,
) -> tuple[float, float]:
    """What each port of a Service adds, and how uncertain that is."""
    if quantity in _CONSTANT:
        return 0.0, 0.0
    shares = [
        (figure - intercept - per_endpoint * load.endpoints) / load.service_ports
        for load, figure in known
        if load.service_ports > PLAIN_PORTS_MAX
    ]
    if not shares:
        return 0.0, 0.0
    share = max(0.0, sum(shares) / len(shares))
    return share, PORT_DEVIATION * share


def _least_squares(places: Any, figures: Any) -> tuple[list[float], list[list[float]], int]:
    """Coefficients, their covariance, degrees of freedom."""
    found, *_ = numpy.linalg.lstsq(places, figures, rcond=None)
    freedom = len(figures) - places.shape[1]
    if freedom < 1:
        return list(map(float, found)), [[0.0] * places.shape[1]] * places.shape[1], freedom
    residuals = figures - places @ found
    variance = float(residuals @ residuals) / freedom
    covariance = variance * numpy.linalg.pinv(places.T @ places)
    return list(map(float, found)), covariance.tolist(), freedom


def _curved(counts: Any, figures: Any) -> str:
    """Says so where a bent line fits better for certain, and bends by ``CURVED_SHARE`` or more."""
    if len(set(counts)) < 4:
        return ""
    largest = float(max(counts))
    found, covariance, freedom = _least_squares(numpy.vander(counts / largest, 3, increasing=True), figures)
    bend, deviation = found[2], math.sqrt(max(0.0, covariance[2][2]))
    if freedom < 1 or abs(bend) <= _ROUNDING_SHARE * float(max(abs(figures))):
        return ""
    if abs(bend) <= deviation * float(scipy_stats.t.ppf(_CURVED_LEVEL, freedom)):
        return ""
    straight = found[1] + bend
    if straight and abs(bend / straight) < CURVED_SHARE:
        return ""
    if found[1] <= 0:
        return f"it is no straight line: the first endpoints cost nothing, those at {largest:,.0f} do"
    return (
        f"it is no straight line: at {largest:,.0f} endpoints one more costs "
        f"{1 + 2 * bend / found[1]:.2f} times what the first cost"
    )


def predict(model: Model, quantity: Quantity, load: Load) -> Prediction | None:
    """``quantity`` at ``load``; None where the model does not have it."""
    line = model.line(quantity)
    if line is None:
        return None
    value = line.at(load) - _heap_not_grown(model, line, load)
    allowance = _ALLOWANCE[quantity]
    if quantity == "sync":
        error = line.error(load)
        return Prediction(
            value=value,
            low=max(0.0, (value - error) / (1 + allowance)),
            high=(value + error) * (1 + allowance),
            distrust=_whys(line.distrust),
        )
    error = math.hypot(line.error(load), allowance * value)
    return Prediction(
        value=value, low=max(0.0, value - error), high=value + error, distrust=_whys(line.distrust)
    )


def _heap_not_grown(model: Model, line: Line, load: Load) -> float:
    """How far kube-proxy's heap stays behind its line beyond the sizes that were measured."""
    if line.quantity != "kube_proxy" or load.endpoints <= line.endpoints_high:
        return 0.0
    nft = model.line("nft")
    layout = "chains" if nft is not None and nft.per_endpoint > CHAINS_BYTES else "map"
    return (1 - HEAP_AT_SCALE[layout]) * line.per_endpoint * (load.endpoints - line.endpoints_high)


def _whys(*whys: str) -> tuple[str, ...]:
    return tuple(why for why in whys if why)


def unreclaimable(model: Model, load: Load) -> Prediction | None:
    """The node's anonymous and kernel memory at the peak of a cold start; None where a part is unknown.

    Its upper end also holds for endpoints that come while kube-proxy runs.
    """
    return _node(model, load, "nft")


def needed(model: Model, load: Load) -> Prediction | None:
    """The same of the worst phase: with kube-proxy 1.36 an nft that lists rules can need more than the load.

    Such an nft runs when kube-proxy starts again or syncs everything with its rules there.
    """
    loaded, listed = predict(model, "nft", load), predict(model, "nft_list", load)
    more = loaded is not None and listed is not None and listed.value > loaded.value
    return _node(model, load, "nft_list" if more else "nft")


def _node(model: Model, load: Load, nft: Quantity) -> Prediction | None:
    parts: tuple[Quantity, ...] = (nft, *_OF_NODE)
    heap = predict(model, "kube_proxy", load)
    arrival_bytes = ARRIVAL_HEAP_SHARE * heap.value if heap is not None else 0.0
    return _sum([predict(model, part, load) for part in parts], arrival_bytes)


def charged(model: Model, load: Load) -> Prediction | None:
    """A cold start with the page cache of a node that has memory enough: the peak of all that is charged."""
    return _sum([unreclaimable(model, load), predict(model, "page_cache", load)], 0.0)


def _sum(parts: Sequence[Prediction | None], more: float) -> Prediction | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    value = sum(part.value for part in known)
    low = math.hypot(*(part.value - part.low for part in known))
    high = math.hypot(*(part.high - part.value for part in known))
    whys = list(dict.fromkeys(why for part in known for why in part.distrust))
    if max(low, high) > WIDE_SHARE * value:
        whys.append(f"the interval is {max(low, high) / value:.0%} wide to a side")
    return Prediction(value=value, low=max(0.0, value - low), high=value + high + more, distrust=tuple(whys))


def endurance_of(
    model: Model, *, memory_bytes: int, ballast_bytes: int, service_ports: int = 1
) -> Endurance | None:
    """When a node dies as endpoints grow; None where the model can't tell what it needs."""
    room_bytes = memory_bytes - ballast_bytes - RESERVE_BYTES

    def crossing(end: Callable[[Prediction], float]) -> int | None:
        return _crossing(model, room_bytes, service_ports, end)

    if needed(model, Load(endpoints=0, service_ports=service_ports)) is None:
        return None
    return Endurance(
        memory_bytes=memory_bytes,
        ballast_bytes=ballast_bytes,
        endpoints=crossing(lambda each: each.value),
        earliest=crossing(lambda each: each.high),
        latest=crossing(lambda each: each.low),
    )


def _crossing(
    model: Model, room_bytes: float, service_ports: int, end: Callable[[Prediction], float]
) -> int | None:
    """The smallest number of endpoints whose need is more than ``room_bytes``."""

    def dies(endpoints: int) -> bool:
        need = needed(model, Load(endpoints=endpoints, service_ports=service_ports))
        return need is not None and end(need) > room_bytes

    if not dies(ENDPOINTS_MAX):
        return None
    return bisect_left(range(ENDPOINTS_MAX + 1), True, key=dies)


def colour(model: Model | None, load: Load, *, memory_bytes: int, ballast_bytes: int) -> Colour:
    """How a node of this memory stands at ``load``: red where it is expected to die, amber where it may.

    Amber too where it needs more than ``AMBER_SHARE`` of its memory.
    """
    need = needed(model, load) if model is not None else None
    if need is None or need.distrust:
        return "unknown"
    room_bytes = memory_bytes - ballast_bytes - RESERVE_BYTES
    if need.value > room_bytes:
        return "red"
    if need.high > room_bytes or need.value + ballast_bytes > AMBER_SHARE * memory_bytes:
        return "amber"
    return "green"
