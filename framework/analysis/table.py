"""One outcome as rows of text: the same words in failing asserts, on the terminal and in reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from framework.outcome import Fate, Measure, Outcome, Phase, Programming, RunResult, Traffic
from framework.spec import Ballast
from framework.units import mib, short_count

PROGRAMMING_WORDS: Final[dict[Programming, str]] = {
    "programmed": "programmed",
    "nft_killed": "nft killed",
    "sync_failed": "sync failed",
    "timed_out": "timed out",
    "daemon_died": "daemon died",
}
PHASE_WORDS: Final[dict[Phase, str]] = {
    "first_programming": "first programming",
    "cold_start": "cold start",
    "endpoints_changed": "endpoints changed",
    "rolling_replacement": "rolling replacement",
    "kube_proxy_restart": "kube-proxy restart",
    "full_resync": "full resync",
    "service_deleted": "Service deleted",
}
FATE_WORDS: Final[dict[Fate, str]] = {
    "programmed": "programmed",
    "programmed_late": "programmed late",
    "nft_killed": "nft killed",
    "sync_failed": "sync failed without a kill",
    "workload_killed": "workload killed",
    "kube_proxy_killed": "kube-proxy killed",
    "kubelet_killed": "kubelet killed",
    "containerd_killed": "containerd killed",
    "silent_outage": "silent outage",
    "starved": "starved",
    "not_ready": "NotReady",
    "recovered": "recovered",
}
_SOURCE_WORDS: Final = {
    "exit_record": "exit record",
    "cgroup_counter": "cgroup counter",
    "sample": "sampled",
    "poll": "polled",
    "log": "log",
    "metric": "metric",
    "listing": "listing",
}
_ERROR_CHARS_MAX: Final = 200


def bounded_mib(measure: Measure | None) -> str:
    """``377``, ``>=1,063`` for a lower bound, ``?`` for an unknown; in MiB."""
    if measure is None:
        return "?"
    return f"{'>=' if measure.bound == 'lower' else ''}{mib(measure.value)}"


def describe_measure(measure: Measure | None) -> str:
    """``>=1,063 MiB (exit record)``."""
    if measure is None:
        return "not seen"
    return f"{bounded_mib(measure)} MiB ({_SOURCE_WORDS[measure.source]})"


def ballast_beside(asked: Mapping[str, str | float | None]) -> str:
    """What else ran on the node, from what was asked of it; empty for nothing."""
    profile = asked.get("ballast_profile")
    return f"{profile} ballast" if profile else str(asked.get("ballast") or "")


def measurement_label(result: RunResult) -> str:
    """``10k x 1.35.0, 2,048 MiB, cold start, ordinary ballast``: what one measurement was."""
    asked, outcome = result.parameters, result.outcome
    endpoints = outcome.endpoints if outcome is not None else asked.get("endpoints")
    limit = outcome.limit_bytes if outcome is not None else asked.get("memory_bytes")
    size = short_count(endpoints) if isinstance(endpoints, int) else "?"
    words = [f"{size} x {asked.get('kube_proxy', '?')}"]
    if isinstance(limit, int):
        words.append(f"{mib(limit)} MiB")
    if outcome is not None and outcome.phase != "first_programming":
        words.append(PHASE_WORDS[outcome.phase])
    words += filter(None, (outcome.shape if outcome is not None else "", ballast_beside(asked)))
    return ", ".join(words)


def describe_ready(outcome: Outcome) -> str:
    """``Ready``, ``NotReady``, ``was NotReady`` (and came back), or ``Ready?`` where too little was seen."""
    if outcome.ready_throughout is None:
        return "Ready?"
    if outcome.ready_throughout:
        return "Ready"
    return "was NotReady" if outcome.ready_at_end else "NotReady"


def describe_outcome(outcome: Outcome) -> str:
    """The outcome in a few words: ``nft killed, Ready``."""
    words = PROGRAMMING_WORDS[outcome.programming]
    if outcome.programming == "nft_killed":
        words = f"{outcome.loader} killed"
    return f"{words}, {describe_ready(outcome)}"


def outcome_rows(outcome: Outcome) -> tuple[tuple[str, str], ...]:
    """Names and values of everything that a reader of a failed check wants to know."""
    return (
        ("outcome", f"{PHASE_WORDS[outcome.phase]}: {describe_outcome(outcome)}"),
        ("node", f"{outcome.node}, kube-proxy {outcome.kube_proxy}"),
        ("service", _service(outcome)),
        ("limit", f"{mib(outcome.limit_bytes)} MiB"),
        (f"{outcome.loader} peak", f"{describe_measure(outcome.nft_bytes_peak)}, {outcome.nft_runs} runs"),
        ("node peak", f"{describe_measure(outcome.charged_bytes_peak)}, page cache included"),
        ("unreclaimable", f"{describe_measure(outcome.unreclaimable_bytes_peak)}, anonymous + kernel"),
        ("killed", _killed(outcome)),
        ("sync", _sync(outcome)),
        ("sync error", _errors(outcome)),
        ("ready", _ready(outcome)),
        *(("fate", f"{FATE_WORDS[seen.fate]} at {seen.at_s:.1f} s: {seen.why}") for seen in outcome.fates),
        ("served", f"{outcome.served or 'unknown'}{_traffic(outcome.traffic_after)}"),
        *(("doubt", str(doubt)) for doubt in outcome.doubts),
    )


def describe_ballast(ballast: Sequence[Ballast]) -> str:
    """``burstable 300 MiB, system 100 MiB page cache``; empty without any."""
    return ", ".join(
        f"{each.kind} {'pod ' if each.form == 'pod' else ''}{mib(each.memory_bytes)} MiB"
        f"{'' if each.content == 'anonymous' else ' page cache'}"
        for each in ballast
    )


def describe_scores(scores: Mapping[str, int]) -> str:
    """``kube-proxy -500, kubelet 0``."""
    return ", ".join(f"{name} {score}" for name, score in sorted(scores.items()))


def render_rows(rows: tuple[tuple[str, str], ...]) -> str:
    """Rows as plain text, names in one column."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _service(outcome: Outcome) -> str:
    shape = f", {outcome.shape}" if outcome.shape else ""
    return f"{outcome.endpoints:,} endpoints ({outcome.endpoint_mode}){shape}"


def _killed(outcome: Outcome) -> str:
    if not outcome.oom_victims:
        return "nobody"
    counts = Counter(outcome.oom_victims)
    victims = ", ".join(name if times == 1 else f"{name} x{times}" for name, times in counts.items())
    return f"{victims} (out of memory at {mib(outcome.limit_bytes)} MiB)"


def _sync(outcome: Outcome) -> str:
    if outcome.sync_full is None:
        return "none with all endpoints"
    took = "?" if outcome.sync_s is None else f"{outcome.sync_s:.2f}"
    return f"{'full' if outcome.sync_full else 'partial'}, {took} s"


def _errors(outcome: Outcome) -> str:
    if not outcome.sync_errors:
        return "none"
    interval = "" if outcome.retry_interval_s is None else f"; longest wait {outcome.retry_interval_s:.0f} s"
    errors = "; ".join(error[:_ERROR_CHARS_MAX] for error in outcome.sync_errors)
    retries = "1 retry" if outcome.retries == 1 else f"{outcome.retries} retries"
    return f"{errors} ({retries}{interval})"


def _traffic(seen: Traffic | None) -> str:
    if seen is None or seen.success is None:
        return " (by the ruleset)"
    p99 = "?" if seen.connect_s_p99 is None else f"{seen.connect_s_p99 * 1000:.1f}"
    return f" ({seen.success:.1%} of {seen.attempts:,} connects, p99 {p99} ms, {seen.backends:,} backends)"


def _ready(outcome: Outcome) -> str:
    throughout = {True: "yes", False: "no", None: "unknown"}[outcome.ready_throughout]
    return f"throughout: {throughout}, at the end: {'yes' if outcome.ready_at_end else 'no'}"
