"""The figures that claims are judged by, taken from recorded measurements.

Each is a function of the measurements of one kube-proxy version that gives a ``Figure``, or says in a
sentence why there is none. Time is nft's own CPU time, because elapsed time depends on what else the machine
did. Memory and listings are of a plain first programming: one Service with one port that was programmed on a
node without ballast. What a Service costs is told from many small ones. Runs in iptables mode say nothing
about nft and are passed over.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

from framework.analysis import failure_order
from framework.claims.model import Claim, Figure
from framework.outcome import Measure, Outcome, Phase, ProcessExit, RunResult
from framework.stages import StagesRun

Found = Figure | str
"""A figure, or why there is none."""

OOM_2GB_MEMORY_BYTES: Final = 2 * 1024**3
OOM_2GB_PROFILE: Final = "ordinary"
MB: Final = 1e6
MANY_SERVICES_MIN: Final = 100
ENDPOINTS_OF_A_SMALL_SERVICE_MAX: Final = 10
"""From so many Services with so few endpoints on, what a node pays is paid for Services."""
TINY_ENDPOINTS: Final = 10
"""The Service whose node stands for an idle one: what it has itself is lost in that of many Services."""
_WHOLE_LOADS: Final[frozenset[Phase]] = frozenset({"cold_start", "kube_proxy_restart"})
"""Phases in which kube-proxy knows all Services before it loads any."""


def measured(claim: Claim, results: Sequence[RunResult], stages: Sequence[StagesRun] = ()) -> Found:
    """The figure that ``claim`` is about, from measurements of one kube-proxy version."""
    if claim.measure in _STAGE_MEASURES:
        return _of_stages(claim, stages)
    if claim.measure not in _MEASURES:
        return "no run measures it"
    of_nft = [result for result in results if result.parameters.get("proxy_mode", "nftables") == "nftables"]
    return _MEASURES[claim.measure](claim, of_nft)


def _plain(results: Sequence[RunResult], endpoints: int | None) -> RunResult | str:
    """The newest measurement of a plain Service that was programmed; else why there is none."""
    found = [
        result
        for result in results
        if result.outcome is not None
        and result.outcome.phase == "first_programming"
        and result.outcome.programming == "programmed"
        and result.outcome.endpoints == endpoints
        and result.parameters.get("shape", "plain") == "plain"
        and result.parameters.get("ports", 1) == 1
        and not result.parameters.get("ballast_bytes")
    ]
    if not found:
        return f"no run with {endpoints:,} endpoints was programmed"
    return max(found, key=lambda result: result.started_utc)


def _of_outcome(result: RunResult | str, figure: Callable[[Outcome], Found]) -> Found:
    if isinstance(result, str):
        return result
    assert result.outcome is not None  # noqa: S101 - _plain picks only those
    return figure(result.outcome)


def _of_both(one: float | str, other: float | str, figure: Callable[[float, float], Figure]) -> Found:
    """The figure of two values, or why the first that is missing is."""
    if isinstance(one, str):
        return one
    if isinstance(other, str):
        return other
    return figure(one, other)


def _mb(value_bytes: float) -> str:
    """Three digits; whole megabytes from a hundred on."""
    value = value_bytes / MB
    return f"{value:,.0f} MB" if value >= 100 else f"{value:.3g} MB"


def _megabytes(measure: Measure | None) -> Found:
    if measure is None:
        return "no nft was seen"
    at_least = ">=" if measure.bound == "lower" else ""
    text = f"{at_least}{_mb(measure.value)}"
    return Figure(value=measure.value, bound=measure.bound, text=text)


def _nft_bytes(claim: Claim, results: Sequence[RunResult]) -> Found:
    return _of_outcome(_plain(results, claim.endpoints), lambda outcome: _megabytes(outcome.nft_bytes_peak))


def _biggest_load(result: RunResult) -> ProcessExit | None:
    assert result.evidence is not None  # noqa: S101 - claims are judged from whole runs
    loads = [record for record in result.evidence.exits if record.comm == "nft" and record.loads_ruleset]
    return max(loads, key=lambda record: record.memory_bytes_peak, default=None)


def _nft_cpu_s(claim: Claim, results: Sequence[RunResult]) -> Found:
    result = _plain(results, claim.endpoints)
    if isinstance(result, str):
        return result
    load = _biggest_load(result)
    if load is None:
        return "no load of nft was seen"
    cpu_s = load.cpu_user_s + load.cpu_system_s
    return Figure(value=cpu_s, bound="exact", text=f"{cpu_s:.2g} s of CPU")


def _growth_exponent(claim: Claim, results: Sequence[RunResult]) -> Found:
    del claim

    def figure(small: float, large: float) -> Figure:
        exponent = math.log10(large / small)
        return Figure(value=exponent, bound="exact", text=f"endpoints to the {exponent:.2f} from 10,000 on")

    return _of_both(_nft_value(results, 10_000), _nft_value(results, 100_000), figure)


def _nft_value(results: Sequence[RunResult], endpoints: int) -> float | str:
    found = _of_outcome(_plain(results, endpoints), lambda outcome: _megabytes(outcome.nft_bytes_peak))
    return found if isinstance(found, str) else found.value


def _nft_bytes_per_endpoint(claim: Claim, results: Sequence[RunResult]) -> Found:
    del claim

    def figure(few: float, many: float) -> Figure:
        each = (many - few) / (10_000 - TINY_ENDPOINTS)
        return Figure(value=each, bound="exact", text=f"{each / 1e3:.1f} KB")

    return _of_both(_nft_value(results, TINY_ENDPOINTS), _nft_value(results, 10_000), figure)


def _many_services(results: Sequence[RunResult]) -> list[tuple[int, RunResult]]:
    """Measurements of many small Services that were programmed, with their number; the most of them last."""
    found = []
    for result in results:
        outcome, parameters = result.outcome, result.parameters
        count = parameters.get("services")
        if outcome is None or outcome.programming != "programmed" or not isinstance(count, int):
            continue
        small = outcome.endpoints <= count * ENDPOINTS_OF_A_SMALL_SERVICE_MAX
        if count >= MANY_SERVICES_MIN and small and not parameters.get("ballast_bytes"):
            found.append((count, result))
    return sorted(found, key=lambda each: (each[0], each[1].started_utc))


def _chains_per_service(claim: Claim, results: Sequence[RunResult]) -> Found:
    """Of the most Services that were programmed, less the chains of a node with one tiny Service."""
    del claim
    many = _many_services(results)
    if not many:
        return "no run had many small Services"
    tiny = _plain(results, TINY_ENDPOINTS)
    if isinstance(tiny, str):
        return tiny
    count, result = many[-1]
    none = tiny.outcome.ruleset if tiny.outcome else None
    all_of_them = result.outcome.ruleset if result.outcome else None
    if none is None or all_of_them is None:
        return "the ruleset was not listed"
    each = (all_of_them.chains - none.chains) / count
    text = f"{each:.1f} chains for each of {count:,} Services {_of_endpoints(result, count)}"
    return Figure(value=round(each, 1), bound="exact", text=text)


def _nft_bytes_per_service(claim: Claim, results: Sequence[RunResult]) -> Found:
    """Of the most Services that one load had; else a lower bound from the biggest of several loads."""
    del claim
    many = _many_services(results)
    if not many:
        return "no run had many small Services"
    tiny = _nft_value(results, TINY_ENDPOINTS)
    if isinstance(tiny, str):
        return tiny
    whole = [each for each in many if each[1].outcome and each[1].outcome.phase in _WHOLE_LOADS]
    count, result = (whole or many)[-1]
    peak = result.outcome.nft_bytes_peak if result.outcome else None
    if peak is None:
        return "no nft was seen"
    each = max(0.0, (peak.value - tiny) / count)
    of = f"for each of {count:,} Services {_of_endpoints(result, count)}"
    if whole:
        return Figure(value=each, bound=peak.bound, text=f"{each / 1e3:.1f} KB {of}, in one load")
    return Figure(value=each, bound="lower", text=f">={each / 1e3:.1f} KB {of}, which came in several loads")


def _of_endpoints(result: RunResult, services: int) -> str:
    assert result.outcome is not None  # noqa: S101 - _many_services picks only those
    return f"with {result.outcome.endpoints / services:g} endpoints"


def _listing(name: str, unit: str, scale: float) -> Callable[[Claim, Sequence[RunResult]], Found]:
    def found(claim: Claim, results: Sequence[RunResult]) -> Found:
        def figure(outcome: Outcome) -> Found:
            if outcome.ruleset is None:
                return "the ruleset was not listed"
            value = int(getattr(outcome.ruleset, name))
            text = f"{value / scale:.3g} {unit}" if scale > 1 else f"{value:,}"
            return Figure(value=value, bound="exact", text=text)

        return _of_outcome(_plain(results, claim.endpoints), figure)

    return found


def _one_endpoint_share(claim: Claim, results: Sequence[RunResult]) -> Found:
    del claim
    changes = [
        result
        for result in results
        if result.outcome is not None
        and result.outcome.phase == "endpoints_changed"
        and result.parameters.get("endpoints_changed") == 1
        and result.outcome.programming == "programmed"
    ]
    if not changes:
        return "no run changed one endpoint"
    change = max(changes, key=lambda result: result.outcome.endpoints if result.outcome else 0)
    assert change.outcome is not None  # noqa: S101 - chosen above
    first = _nft_value(results, change.outcome.endpoints)
    if isinstance(first, str):
        return first
    one = change.outcome.nft_bytes_peak
    if one is None:
        return "no nft was seen"
    share = one.value / first
    text = f"{share:.0%} of the memory at {change.outcome.endpoints:,} endpoints"
    return Figure(value=share, bound=one.bound, text=text)


def _checks_per_update(claim: Claim, results: Sequence[RunResult]) -> Found:
    """Of phases after the first: kube-proxy checks a tiny transaction once when it starts."""
    del claim
    changed = [
        result
        for result in results
        if result.outcome is not None
        and result.outcome.phase in {"endpoints_changed", "rolling_replacement"}
        and result.evidence is not None
    ]
    if not changed:
        return "no run changed endpoints"
    loads = checks = 0
    for result in changed:
        assert result.evidence is not None  # noqa: S101 - chosen above
        exits = [record for record in result.evidence.exits if record.comm == "nft"]
        if any(record.argv is None for record in exits):
            return "the command line of some nft is unknown"
        loads += sum(bool(record.loads_ruleset) for record in exits)
        checks += sum(bool({"--check", "-c"} & set(record.argv or ())) for record in exits)
    if not loads:
        return "no load of nft was seen"
    text = f"{checks} checks, {loads} loads"
    return Figure(value=checks / loads, bound="exact", text=text)


def _articles_death(claim: Claim, results: Sequence[RunResult]) -> Found:
    """1 where, in any run, kubelet was killed and the node turned NotReady, on an ordinary node of 2 GiB."""
    found = [
        result
        for result in results
        if result.outcome is not None
        and result.outcome.endpoints == claim.endpoints
        and result.parameters.get("memory_bytes") == OOM_2GB_MEMORY_BYTES
        and result.parameters.get("ballast_profile") == OOM_2GB_PROFILE
        and result.parameters.get("oom_policy") == "production"
    ]
    if not found:
        return f"no run had an ordinary node of 2 GiB and {claim.endpoints:,} endpoints"
    for result in found:
        if result.verdict is not None and result.verdict.result == "unknown":
            return f"unknown: {'; '.join(result.verdict.reasons)}"
    outcomes = [result.outcome for result in found if result.outcome is not None]
    died = any({"kubelet_killed", "not_ready"} <= {seen.fate for seen in each.fates} for each in outcomes)
    text = "; or ".join(dict.fromkeys(_death(outcome) for outcome in outcomes))
    return Figure(value=died, bound="exact", text=text)


def _death(outcome: Outcome) -> str:
    victims = ", ".join(dict.fromkeys(outcome.victims)) or "nobody"
    ready = "NotReady" if any(seen.fate == "not_ready" for seen in outcome.fates) else "Ready"
    return f"killed: {victims}; {ready}, {outcome.served or 'unknown whether'} served"


def _weakest_first(claim: Claim, results: Sequence[RunResult]) -> Found:
    """1 where nodes of several sizes under one Service failed in the order of their memory."""
    groups: defaultdict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for result in results:
        if result.outcome is not None and result.outcome.endpoints == claim.endpoints:
            zero = result.evidence.zero_utc if result.evidence else ""
            groups[result.test_id, zero].append(result.outcome)
    together = [group for group in groups.values() if len({outcome.limit_bytes for outcome in group}) > 1]
    if not together:
        return f"no run had nodes of several sizes and {claim.endpoints:,} endpoints"
    failed = failure_order(together[-1])
    if not failed:
        return "none of the nodes failed"
    order = [outcome.limit_bytes or 0 for outcome, _ in failed]
    survived = [outcome.limit_bytes or 0 for outcome in together[-1] if outcome.limit_bytes not in order]
    weakest = order == sorted(order) and all(limit > max(order) for limit in survived)
    text = ", ".join(f"{limit / 1024**3:g} GiB" for limit in order)
    return Figure(value=weakest, bound="exact", text=f"failed: {text}")


def _quiet(claim: Claim, results: Sequence[RunResult]) -> Found:
    """1 where nobody was killed, no sync failed and the node was Ready all the time."""

    def figure(outcome: Outcome) -> Found:
        quiet = not outcome.victims and not outcome.syncs_failed and outcome.ready_throughout is True
        text = "no kill, no failed sync, Ready" if quiet else "something showed"
        return Figure(value=quiet, bound="exact", text=text)

    return _of_outcome(_plain(results, claim.endpoints), figure)


def _connect_p50_ratio(claim: Claim, results: Sequence[RunResult]) -> Found:
    del claim

    def figure(few: float, many: float) -> Figure:
        text = f"{few * 1e6:.0f} us, then {many * 1e6:.0f} us"
        return Figure(value=many / few, bound="exact", text=text)

    return _of_both(_connect_p50_s(results, 10), _connect_p50_s(results, 100_000), figure)


def _connect_p50_s(results: Sequence[RunResult], endpoints: int) -> float | str:
    result = _plain(results, endpoints)
    if isinstance(result, str):
        return result
    seen = result.outcome.traffic_after if result.outcome else None
    if seen is None or seen.connect_s_p50 is None:
        return f"no client asked the Service with {endpoints:,} endpoints"
    return seen.connect_s_p50


def _of_stages(claim: Claim, stages: Sequence[StagesRun]) -> Found:
    """Of the newest profile with the claim's endpoints; of the biggest load where it names none."""
    if not stages:
        return "nft's stages are measured by `kilonode stages --json FILE`; give the file with --stages"
    asked = [run.endpoints_asked or 0 for run in stages]
    endpoints = claim.endpoints or max(asked)
    found = [run for run in stages if run.endpoints_asked == endpoints]
    if not found:
        return f"no load with {endpoints:,} endpoints was profiled"
    return _STAGE_MEASURES[claim.measure](max(found, key=lambda run: run.made_utc))


def _stage_parse_ratio(run: StagesRun) -> Found:
    tree, file = run.heap.most.parsed_bytes / MB, run.transaction.size_bytes / MB
    text = f">={run.parse_ratio:.1f} times: {tree:.3g} MB of {file:.3g} MB"
    return Figure(value=run.parse_ratio, bound="lower", text=text)


def _stage_structures_bytes(run: StagesRun) -> Found:
    peak = run.heap.peak
    value = peak.beyond_parser_bytes
    text = f"{_mb(value)} beyond the parser's; {peak.structures_bytes:,} bytes of libnftnl's"
    return Figure(value=value, bound="exact", text=text)


def _stage_netlink_bytes(run: StagesRun) -> Found:
    value = run.heap.peak.netlink_bytes
    text = f"{_mb(value)}, {_mb(run.heap.sent_bytes)} of it sent"
    return Figure(value=value, bound="exact", text=text)


_STAGE_MEASURES: Final[dict[str, Callable[[StagesRun], Found]]] = {
    "stage_parse_ratio": _stage_parse_ratio,
    "stage_structures_bytes": _stage_structures_bytes,
    "stage_netlink_bytes": _stage_netlink_bytes,
}

_MEASURES: Final[dict[str, Callable[[Claim, Sequence[RunResult]], Found]]] = {
    "nft_bytes": _nft_bytes,
    "nft_cpu_s": _nft_cpu_s,
    "growth_exponent": _growth_exponent,
    "nft_bytes_per_endpoint": _nft_bytes_per_endpoint,
    "chains_per_service": _chains_per_service,
    "nft_bytes_per_service": _nft_bytes_per_service,
    "listing_bytes": _listing("listing_bytes", "MB", MB),
    "chains": _listing("chains", "", 1),
    "rules": _listing("rules", "", 1),
    "one_endpoint_share": _one_endpoint_share,
    "checks_per_update": _checks_per_update,
    "articles_death": _articles_death,
    "weakest_first": _weakest_first,
    "quiet": _quiet,
    "connect_p50_ratio": _connect_p50_ratio,
}
