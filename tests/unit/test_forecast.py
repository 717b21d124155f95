"""A forecast: exact for samples on a line, honest about its error, of one node whichever way it is asked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from framework.analysis.forecast import (
    AMBER_SHARE,
    ARRIVAL_HEAP_SHARE,
    ENDPOINTS_MAX,
    HEAP_AT_SCALE,
    PORT_DEVIATION,
    UNTESTED_SHARE,
    Colour,
    Endurance,
    ForecastSample,
    Line,
    Load,
    Model,
    Prediction,
    Quantity,
    charged,
    colour,
    endurance_of,
    fit,
    needed,
    predict,
    unreclaimable,
)
from framework.analysis.limit_search import RESERVE_BYTES
from framework.units import GIB, MIB

Law = Callable[[Load], float | None]

SMALL: Final = tuple(
    Load(endpoints=endpoints, service_ports=1) for endpoints in (1000, 2000, 3000, 5000, 5000, 5000)
)
LARGE: Final = Load(endpoints=100_000, service_ports=1)
LAWS: Final[dict[str, Law]] = {
    "nft_bytes": lambda load: 8_000_000 + 11_500 * load.endpoints,
    "nft_list_bytes": lambda load: 8_000_000 + 2_000 * load.endpoints,
    "kube_proxy_bytes": lambda load: 12_000_000 + 3_900 * load.endpoints,
    "kernel_bytes": lambda load: 2_700_000 + 900 * load.endpoints,
    "others_bytes": lambda load: 35_000_000,
    "page_cache_bytes": lambda load: 210_000_000,
    "sync_s": lambda load: 0.1 + 0.0002 * load.endpoints,
}
FLAT: Final[dict[str, Law]] = {"nft_bytes": lambda load: 8_000_000 + 1_300 * load.endpoints}
"""Where noise is large beside what endpoints cost."""
REPETITIONS: Final = 300
NODE: Final[tuple[Quantity, ...]] = ("nft", "kube_proxy", "kernel", "others")


def line(intercept: float, per_endpoint: float) -> Law:
    return lambda load: intercept + per_endpoint * load.endpoints


def bent(load: Load) -> float:
    """An endpoint costs twice as much at 5,000 as at first."""
    return 8_000_000 + 10_000 * load.endpoints + load.endpoints**2


def only(quantity: Quantity, law: Law) -> dict[str, Any]:
    """The argument of a model in which memory of one kind follows ``law``."""
    return {f"{quantity}_bytes": law}


def a_sample(load: Load, **laws: Law) -> ForecastSample:
    figures: dict[str, Any] = {}
    for name, law in (LAWS | laws).items():
        figure = law(load)
        figures[name] = figure if figure is None or name == "sync_s" else round(figure)
    return ForecastSample(load=load, **figures)


def a_model(loads: Sequence[Load] = SMALL, *, kube_proxy: str = "1.35.0", **laws: Law) -> Model:
    """Of a node whose parts follow ``LAWS``, or ``laws`` in their place."""
    samples = [a_sample(load, **laws) for load in loads]
    return fit(samples, kube_proxy=kube_proxy, nft="1.0.6", kernel="6.18.0")


def without(model: Model, *quantities: Quantity) -> Model:
    lines = tuple(line for line in model.lines if line.quantity not in quantities)
    return msgspec.structs.replace(model, lines=lines)


def found(model: Model, quantity: Quantity, load: Load = LARGE) -> Prediction:
    prediction = predict(model, quantity, load)
    assert prediction is not None
    return prediction


def node(model: Model, load: Load = LARGE) -> Prediction:
    prediction = unreclaimable(model, load)
    assert prediction is not None
    return prediction


def line_of(model: Model, quantity: Quantity) -> Line:
    found = model.line(quantity)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def noisy() -> tuple[Model, ...]:
    """300 models of the same node, from figures with 1 % of noise."""
    numbers = numpy.random.default_rng(1)

    def seen(law: Law) -> Law:
        return lambda load: float((law(load) or 0) * numbers.normal(1, 0.01))

    laws: dict[str, Any] = {name: seen(law) for name, law in (LAWS | FLAT).items()}
    return tuple(a_model(**laws) for _ in range(REPETITIONS))


class TestFit:
    @settings(max_examples=50, deadline=None)
    @given(
        quantity=st.sampled_from(["nft", "nft_list", "kernel"]),
        intercept=st.integers(MIB, GIB),
        per_endpoint=st.integers(0, 100_000),
        endpoints=st.integers(0, 1_000_000),
    )
    @example(quantity="kernel", intercept=39_508_122, per_endpoint=0, endpoints=100_000)
    def test_samples_on_a_line_are_predicted_exactly(
        self, quantity: Quantity, intercept: int, per_endpoint: int, endpoints: int
    ) -> None:
        model = a_model(**only(quantity, line(intercept, per_endpoint)))
        truth = intercept + per_endpoint * endpoints
        prediction = found(model, quantity, Load(endpoints=endpoints, service_ports=1))
        assert prediction.value == pytest.approx(truth, rel=1e-6)
        assert prediction.low <= truth <= prediction.high
        assert prediction.distrust == ()

    @pytest.mark.parametrize("quantity", ["nft", "nft_list", "kernel"])
    def test_the_truth_is_inside_the_interval_of_noisy_samples(
        self, noisy: tuple[Model, ...], quantity: Quantity
    ) -> None:
        truth = (LAWS | FLAT)[f"{quantity}_bytes"](LARGE) or 0
        predictions = [found(model, quantity) for model in noisy]
        assert sum(each.low <= truth <= each.high for each in predictions) >= 0.93 * REPETITIONS

    def test_noise_is_hardly_ever_taken_for_a_bend(self, noisy: tuple[Model, ...]) -> None:
        assert sum(line_of(model, "nft").distrust != "" for model in noisy) <= 0.03 * REPETITIONS

    def test_what_is_no_straight_line_is_named_and_distrusted(self) -> None:
        model = a_model(nft_bytes=bent)
        why = "it is no straight line: at 5,000 endpoints one more costs 2.00 times what the first cost"
        assert found(model, "nft").distrust == (why,)
        assert node(model).distrust == (why,)
        assert colour(model, LARGE, memory_bytes=64 * GIB, ballast_bytes=0) == "unknown"

    def test_so_is_what_costs_nothing_at_first(self) -> None:
        model = a_model(nft_bytes=lambda load: 8_000_000 + load.endpoints**2 - 100 * load.endpoints)
        (why,) = found(model, "nft").distrust
        assert why == "it is no straight line: the first endpoints cost nothing, those at 5,000 do"

    def test_what_becomes_less_is_noise_around_a_constant(self) -> None:
        model = a_model(nft_list_bytes=line(8_000_000, -100))
        listed = line_of(model, "nft_list")
        assert (listed.per_endpoint, listed.distrust) == (0, "")
        assert found(model, "nft_list").value == pytest.approx(8_000_000 - 100 * 3500)

    @pytest.mark.parametrize(("layout", "per_endpoint"), [("chains", 11_500), ("map", 1_300)])
    def test_a_kube_proxy_grows_slower_beyond_what_was_measured(self, layout: str, per_endpoint: int) -> None:
        model = a_model(nft_bytes=line(8_000_000, per_endpoint))
        inside, edge, beyond = (
            found(model, "kube_proxy", Load(endpoints=endpoints, service_ports=1)).value
            for endpoints in (4000, 5000, 100_000)
        )
        assert edge - inside == pytest.approx(3_900 * 1000)
        assert beyond - edge == pytest.approx(HEAP_AT_SCALE[layout] * 3_900 * 95_000)

    @pytest.mark.parametrize("quantity", ["others", "page_cache"])
    def test_what_does_not_grow_with_endpoints_is_their_middle_everywhere(self, quantity: Quantity) -> None:
        model = a_model(**only(quantity, line(35_000_000, 300)))
        few, many = (
            found(model, quantity, load).value
            for load in (SMALL[0], Load(endpoints=10**6, service_ports=10**5))
        )
        assert few == many == pytest.approx(35_000_000 + 300 * 3500)

    @pytest.mark.parametrize("sizes", [(1000,), (1000, 1000, 1000)])
    def test_one_size_tells_nothing_of_others(self, sizes: tuple[int, ...]) -> None:
        model = a_model([Load(endpoints=size, service_ports=1) for size in sizes])
        assert {line.quantity for line in model.lines} == {"others", "page_cache"}

    def test_as_many_samples_as_coefficients_are_off_by_a_share(self) -> None:
        untested = line_of(a_model(SMALL[2:4]), "nft")
        assert untested.at(LARGE) == pytest.approx(8_000_000 + 11_500 * 100_000)
        assert untested.error(LARGE) == pytest.approx(UNTESTED_SHARE * untested.at(LARGE))

    def test_times_are_off_by_a_factor(self) -> None:
        prediction = found(a_model(), "sync")
        assert prediction.value == pytest.approx(20.1)
        assert (prediction.low, prediction.high) == pytest.approx((20.1 / 2, 20.1 * 2))


class TestServicePorts:
    MANY = Load(endpoints=500, service_ports=250)

    def test_each_costs_what_samples_with_many_took_beyond_their_endpoints(self) -> None:
        model = a_model(
            [*SMALL, self.MANY],
            nft_bytes=lambda load: 8_000_000 + 11_500 * load.endpoints + 15_000 * (load.service_ports - 1),
        )
        few, many = (
            found(model, "nft", Load(endpoints=10_000, service_ports=ports)) for ports in (1000, 2000)
        )
        assert many.value - few.value == pytest.approx(15_000 * 1000, rel=0.01)
        assert many.high - many.value > few.high - few.value

    def test_how_uncertain_they_are_is_a_share_of_them(self) -> None:
        model = a_model(
            [*SMALL, self.MANY],
            nft_bytes=lambda load: 8_000_000 + (1_000_000 if load.service_ports > 1 else 0),
        )
        nft = line_of(model, "nft")
        assert nft.per_service_port == pytest.approx(1_000_000 / 250)
        assert math.sqrt(nft.covariance[2][2]) == pytest.approx(PORT_DEVIATION * nft.per_service_port)

    def test_cost_nothing_where_no_sample_has_many_or_they_took_less(self) -> None:
        cheaper = a_model(
            [*SMALL, self.MANY], nft_bytes=lambda load: 8_000_000 if load.service_ports > 1 else 10_000_000
        )
        for model in (a_model(), cheaper):
            assert line_of(model, "nft").per_service_port == 0


class TestNode:
    @pytest.mark.parametrize(("listing", "nft"), [(2_000, 11_500), (20_000, 20_000)])
    def test_needs_the_larger_of_loading_and_listing_in_its_worst_phase(self, listing: int, nft: int) -> None:
        model = a_model(nft_list_bytes=line(8_000_000, listing))
        rest = sum(found(model, part).value for part in ("kube_proxy", "kernel", "others"))
        worst = needed(model, LARGE)
        assert worst is not None
        assert worst.value == pytest.approx(8_000_000 + nft * 100_000 + rest)
        assert node(model) == node(a_model())

    def test_upper_end_is_also_of_endpoints_that_come_while_kube_proxy_runs(self) -> None:
        model = a_model()
        whole, parts = node(model), [found(model, part) for part in NODE]
        heap = found(model, "kube_proxy").value
        assert whole.value == pytest.approx(sum(part.value for part in parts))
        independent = math.hypot(*(part.high - part.value for part in parts))
        assert whole.value - whole.low == pytest.approx(independent)
        assert whole.high - whole.value == pytest.approx(independent + ARRIVAL_HEAP_SHARE * heap)

    def test_is_charged_for_its_page_cache_too(self) -> None:
        model = a_model()
        everything = charged(model, LARGE)
        assert everything is not None
        assert everything.value == pytest.approx(node(model).value + 210_000_000)
        assert everything.low < everything.value < everything.high

    @pytest.mark.parametrize("part", NODE)
    def test_is_unknown_without_a_part(self, part: Quantity) -> None:
        model = without(a_model(), part)
        assert predict(model, part, LARGE) is None
        assert unreclaimable(model, LARGE) is None
        assert charged(model, LARGE) is None
        assert endurance_of(model, memory_bytes=GIB, ballast_bytes=0) is None
        assert colour(model, LARGE, memory_bytes=64 * GIB, ballast_bytes=0) == "unknown"

    def test_is_known_without_what_it_need_not_hold(self) -> None:
        model = a_model(nft_list_bytes=lambda load: None, sync_s=lambda load: None)
        model = without(model, "page_cache")
        assert {line.quantity for line in model.lines} == set(NODE)
        assert node(model) == node(a_model())
        assert charged(model, LARGE) is None

    def test_is_distrusted_when_its_interval_is_too_wide(self) -> None:
        swing = itertools.cycle([0.7, 1.3])
        model = a_model(nft_bytes=lambda load: (8_000_000 + 11_500 * load.endpoints) * next(swing))
        (why,) = node(model).distrust
        assert why.endswith("% wide to a side")
        assert found(model, "nft").distrust == ()


def endurance(model: Model, memory_bytes: int, ballast_bytes: int = 0, ports: int = 1) -> Endurance:
    found = endurance_of(model, memory_bytes=memory_bytes, ballast_bytes=ballast_bytes, service_ports=ports)
    assert found is not None
    return found


def inf(endpoints: int | None) -> float:
    """To compare, with None as more than any number."""
    return math.inf if endpoints is None else endpoints


class TestEndurance:
    @settings(max_examples=10, deadline=None)
    @given(
        memory_bytes=st.integers(256 * MIB, 16 * GIB),
        ballast_bytes=st.integers(0, 128 * MIB),
        ports=st.integers(1, 1000),
    )
    def test_ends_with_the_first_endpoint_that_does_not_fit(
        self, memory_bytes: int, ballast_bytes: int, ports: int
    ) -> None:
        model = a_model([*SMALL, Load(endpoints=500, service_ports=250)])
        ends = endurance(model, memory_bytes, ballast_bytes, ports)
        room = memory_bytes - ballast_bytes - RESERVE_BYTES

        def need(endpoints: int) -> Prediction:
            return node(model, Load(endpoints=endpoints, service_ports=ports))

        assert ends.endpoints is not None
        assert need(ends.endpoints - 1).value <= room < need(ends.endpoints).value
        assert ends.earliest is not None
        assert need(ends.earliest - 1).high <= room < need(ends.earliest).high
        assert ends.latest is not None
        assert need(ends.latest - 1).low <= room < need(ends.latest).low
        assert ends.earliest <= ends.endpoints <= ends.latest

    def test_grows_with_memory_and_shrinks_with_ballast(self) -> None:
        model = a_model()
        sizes = [64 * MIB, 128 * MIB, GIB, 4 * GIB, 64 * GIB]
        by_memory = [endurance(model, size) for size in sizes]
        by_ballast = [endurance(model, 64 * GIB, 64 * GIB - size) for size in sizes]
        for each in (by_memory, by_ballast):
            assert (each[0].endpoints, each[-1].endpoints) == (0, None)
            for ends in ("earliest", "endpoints", "latest"):
                counts = [inf(getattr(one, ends)) for one in each]
                assert counts == sorted(counts)
        assert [ends.endpoints for ends in by_memory] == [ends.endpoints for ends in by_ballast]

    def test_has_no_end_where_all_that_is_looked_at_fits(self) -> None:
        model = a_model()
        most = node(model, Load(endpoints=ENDPOINTS_MAX, service_ports=1)).value + RESERVE_BYTES
        assert endurance(model, math.ceil(most)).endpoints is None
        assert endurance(model, math.floor(most) - 1).endpoints == ENDPOINTS_MAX

    def test_is_over_at_once_where_even_no_endpoint_fits(self) -> None:
        ends = endurance(a_model(), 2 * GIB, 2 * GIB)
        assert (ends.earliest, ends.endpoints, ends.latest) == (0, 0, 0)


class TestColour:
    @pytest.mark.parametrize(
        ("memory_bytes", "ballast_bytes", "expected"),
        [
            (lambda needed: needed.value / AMBER_SHARE + 1, 0, "green"),
            (lambda needed: needed.value / AMBER_SHARE - 1, 0, "amber"),
            (lambda needed: (needed.value + GIB) / AMBER_SHARE + 1, GIB, "green"),
            (lambda needed: (needed.value + GIB) / AMBER_SHARE - 1, GIB, "amber"),
            (lambda needed: needed.value + RESERVE_BYTES + 1, 0, "amber"),
            (lambda needed: needed.value + RESERVE_BYTES - 1, 0, "red"),
            (lambda needed: needed.value + RESERVE_BYTES + GIB - 1, GIB, "red"),
        ],
    )
    def test_changes_at_its_threshold(
        self, memory_bytes: Callable[[Prediction], float], ballast_bytes: int, expected: Colour
    ) -> None:
        model = a_model()
        memory = round(memory_bytes(node(model)))
        assert colour(model, LARGE, memory_bytes=memory, ballast_bytes=ballast_bytes) == expected

    def test_is_amber_where_the_interval_reaches_beyond_the_node(self) -> None:
        model, load = a_model(), SMALL[0]
        edge = node(model, load).high + RESERVE_BYTES
        assert node(model, load).value < AMBER_SHARE * edge
        assert colour(model, load, memory_bytes=round(edge) + 1, ballast_bytes=0) == "green"
        assert colour(model, load, memory_bytes=round(edge) - 1, ballast_bytes=0) == "amber"

    def test_is_unknown_without_a_model(self) -> None:
        assert colour(None, LARGE, memory_bytes=64 * GIB, ballast_bytes=0) == "unknown"
