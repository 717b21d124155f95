"""kube-proxy's syncs from its log, and its metrics."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.observe.kube_proxy import (
    ContainerText,
    FileText,
    ProxyLog,
    SyncDurations,
    SyncParser,
    parse_duration_s,
    parse_entry,
    parse_metrics,
    zero_in_local_time,
)
from framework.outcome import ProxySync

RECORDED = Path(__file__).parent / "recorded" / "kube_proxy"
ZERO = datetime(2026, 11, 23, 8, 20, tzinfo=UTC)
HEAD = "I1123 08:20:{second:06.3f}000    4242 proxier.go:1138] "


def entry(second: float, text: str, severity: str = "I") -> str:
    return severity + HEAD.format(second=second)[1:] + text + "\n"


BOTH_FAMILIES = "".join(
    [
        entry(0.5, '"Version info" version="v1.35.0"'),
        "no klog line at all\n",
        entry(1.0, '"Syncing nftables rules" ipFamily="IPv4" fullSync=true'),
        entry(1.1, '"Syncing nftables rules" ipFamily="IPv6" fullSync=true'),
        entry(1.2, '"Reloading service nftables data" ipFamily="IPv6" numServices=0 numEndpoints=0'),
        entry(1.3, '"SyncProxyRules complete" ipFamily="IPv6" elapsed="210.5ms"'),
        entry(2.0, '"Reloading service nftables data" ipFamily="IPv4" numServices=2 numEndpoints=10001'),
        entry(2.4, '"SyncProxyRules complete" ipFamily="IPv4" elapsed="1.400s"'),
    ]
)
FAILED = "".join(
    [
        entry(3.0, '"Syncing nftables rules" ipFamily="IPv4" fullSync=true'),
        entry(4.0, '"Reloading service nftables data" ipFamily="IPv4" numServices=2 numEndpoints=100001'),
        entry(9.0, '"nftables sync failed" err="signal: killed" ipFamily="IPv4"', "E"),
        entry(9.1, '"Sync failed" ipFamily="IPv4" retryingTime="30s"'),
        entry(9.2, '"SyncProxyRules complete" ipFamily="IPv4" elapsed="6.250s"'),
    ]
)
MULTI_LINE = "".join(
    [
        entry(3.0, '"Syncing nftables rules" ipFamily="IPv4" fullSync=false'),
        entry(4.0, '"nftables sync failed" err=<', "E"),
        '\texit status 1:\n\t/dev/stdin:2:1-9: Error: no such table\n > ipFamily="IPv4"\n',
        entry(5.0, '"SyncProxyRules complete" ipFamily="IPv4" elapsed="2s"'),
    ]
)


def syncs(text: str, zero: datetime = ZERO) -> tuple[ProxySync, ...]:
    parser = SyncParser(zero)
    parser.feed(text)
    return parser.syncs


def test_families_interleave() -> None:
    six, four = syncs(BOTH_FAMILIES)
    assert (six.family, six.services, six.endpoints) == ("IPv6", 0, 0)
    assert (four.family, four.full, four.services, four.endpoints) == ("IPv4", True, 2, 10001)
    assert four.ended_at_s == pytest.approx(2.4)
    assert four.elapsed_s == pytest.approx(1.4)
    assert four.started_at_s == pytest.approx(1.0)
    assert (four.error, four.retry_after_s) == (None, None)


@pytest.mark.parametrize("version", ["1.35.0", "1.37.2"])
def test_a_recorded_start_and_a_service_of_a_thousand_endpoints(version: str) -> None:
    recorded = syncs((RECORDED / f"{version}.log").read_text())
    assert [(sync.family, sync.full, sync.services, sync.endpoints) for sync in recorded] == [
        ("IPv4", True, 1, 1),
        ("IPv6", True, 0, 0),
        ("IPv4", False, 2, 1),
        ("IPv4", False, 2, 1001),
    ]
    assert all(sync.error is None and sync.ended_at_s is not None for sync in recorded)
    assert all(0.01 < (sync.elapsed_s or 0) < 1 for sync in recorded)


@pytest.mark.parametrize("version", ["1.35.0", "1.37.2"])
def test_a_recorded_start_in_iptables_mode(version: str) -> None:
    recorded = syncs((RECORDED / f"{version}-iptables.log").read_text())
    assert [(sync.family, sync.full, sync.services, sync.endpoints) for sync in recorded] == [
        ("IPv4", True, 1, 1),
        ("IPv6", True, 0, 0),
        ("IPv4", False, 2, 1001),
    ]
    assert all(sync.error is None and sync.ended_at_s is not None for sync in recorded)
    assert all(0.01 < (sync.elapsed_s or 0) < 1 for sync in recorded)


@pytest.mark.parametrize(
    "message",
    ["Failed to execute iptables-restore", "Failed to ensure chain exists", "Failed to ensure chain jumps"],
)
def test_a_failure_in_iptables_mode(message: str) -> None:
    text = FAILED.replace("nftables rules", "iptables rules").replace("nftables data", "iptables data")
    (failed,) = syncs(text.replace("nftables sync failed", message))
    assert (failed.error, failed.retry_after_s) == ("signal: killed", 30.0)
    assert failed.endpoints == 100001


def test_a_killed_nft() -> None:
    (failed,) = syncs(FAILED)
    assert failed.error == "signal: killed"
    assert failed.retry_after_s == 30.0
    assert failed.endpoints == 100001
    assert failed.elapsed_s == 6.25


def test_an_error_of_several_lines() -> None:
    (failed,) = syncs(MULTI_LINE)
    assert failed.error == "exit status 1:\n/dev/stdin:2:1-9: Error: no such table"
    assert failed.full is False
    assert failed.ended_at_s == pytest.approx(5.0)


def test_an_error_that_is_never_closed_ends_with_the_next_entry() -> None:
    text = FAILED.replace('err="signal: killed" ipFamily="IPv4"', "err=<\n\tcut", 1)
    (failed,) = syncs(text)
    assert failed.error == "Sync failed"
    assert failed.ended_at_s == pytest.approx(9.2)


def test_a_sync_under_way_and_one_that_was_interrupted() -> None:
    begin = entry(1.0, '"Syncing nftables rules" ipFamily="IPv4" fullSync=true')
    (running,) = syncs(begin)
    assert (running.ended_at_s, running.elapsed_s, running.endpoints) == (None, None, None)
    interrupted, restarted = syncs(begin + begin.replace("08:20:01", "08:20:02"))
    assert interrupted.ended_at_s is None
    assert restarted.started_at_s == pytest.approx(2.0)


@given(st.lists(st.integers(0, len(BOTH_FAMILIES + FAILED + MULTI_LINE))))
def test_pieces_of_any_size_give_the_same(cuts: list[int]) -> None:
    text = BOTH_FAMILIES + FAILED + MULTI_LINE
    parser = SyncParser(ZERO)
    edges = [0, *sorted(cuts), len(text)]
    for start, end in itertools.pairwise(edges):
        parser.feed(text[start:end])
    assert parser.syncs == syncs(text)


@given(st.lists(st.one_of(st.sampled_from((BOTH_FAMILIES + MULTI_LINE).splitlines()), st.text(max_size=60))))
def test_no_log_is_an_error(lines: list[str]) -> None:
    for sync in syncs("\n".join(lines) + "\n"):
        assert sync.family in ("IPv4", "IPv6")


def test_the_year_and_the_zone_come_from_the_zero() -> None:
    new_year = datetime(2026, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=5)))
    (line,) = ['I0101 00:00:01.500000  1 x.go:1] "SyncProxyRules complete"']
    parsed = parse_entry(line, new_year)
    assert parsed is not None
    assert parsed.at_s == 2.5
    assert parse_entry(line.replace("0101", "0230"), new_year) is None


def test_quoted_values_are_unescaped() -> None:
    parsed = parse_entry(entry(1, r'"m" err="a \"b\"\tc" n=3 bad="\q" empty=').rstrip("\n"), ZERO)
    assert parsed is not None
    assert parsed.values["err"] == 'a "b"\tc'
    assert (parsed.values["n"], parsed.values["empty"]) == ("3", "")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1.2ms", 0.0012), ("38.5s", 38.5), ("1m30.5s", 90.5), ("1h0m0s", 3600), ("350µs", 0.00035), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [None, "", "soon", "3", "1s later"])
def test_what_is_no_duration(text: str | None) -> None:
    assert parse_duration_s(text) is None


def test_a_log_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "kube-proxy.log"
    log = ProxyLog(FileText(path), ZERO)
    assert log.syncs() == ()
    data = (FAILED + MULTI_LINE).encode()
    for end in range(0, len(data), 97):
        path.write_bytes(data[:end])
        log.syncs()
    path.write_bytes(data)
    assert log.syncs() == syncs(FAILED + MULTI_LINE)


STAMP = "2026-11-26T18:00:00.000000001Z"


def as_container(text: str, *, part_chars: int) -> bytes:
    """``text`` as a container runtime writes it, whose buffer holds ``part_chars`` of a line."""
    lines = []
    for line in text.splitlines():
        parts = [line[at : at + part_chars] for at in range(0, max(1, len(line)), part_chars)]
        tags = ["P"] * (len(parts) - 1) + ["F"]
        lines += [
            f"2026-11-26T18:00:00.000000001Z stderr {tag} {part}\n"
            for tag, part in zip(tags, parts, strict=True)
        ]
    return "".join(lines).encode()


@pytest.mark.parametrize("part_chars", [9, 1000])
def test_a_containers_log_in_parts_and_files(tmp_path: Path, part_chars: int) -> None:
    log = ProxyLog(ContainerText(tmp_path, "kube-system_proxy_*/kube-proxy/*.log"), ZERO)
    assert log.syncs() == ()
    folder = tmp_path / "kube-system_proxy_1a2b" / "kube-proxy"
    folder.mkdir(parents=True)
    first = as_container(FAILED, part_chars=part_chars)
    (folder / "0.log").write_bytes(first[:-200])
    log.syncs()
    (folder / "0.log").write_bytes(first)
    log.syncs()
    (folder / "1.log").write_bytes(as_container(MULTI_LINE, part_chars=part_chars))
    assert log.syncs() == syncs(FAILED + MULTI_LINE)


def test_zero_is_before_now_by_what_passed_since() -> None:
    zero = zero_in_local_time(zero_boottime_s=100.0, now_boottime_s=160.0)
    assert (datetime.now(UTC) - zero).total_seconds() == pytest.approx(60.0, abs=5)


METRICS = """\
# HELP kubeproxy_sync_full_proxy_rules_duration_seconds [ALPHA] SyncProxyRules latency
# TYPE kubeproxy_sync_full_proxy_rules_duration_seconds histogram
kubeproxy_sync_full_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.001"} 0
kubeproxy_sync_full_proxy_rules_duration_seconds_sum{ip_family="IPv4"} 1.5
kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"} 2
kubeproxy_sync_full_proxy_rules_duration_seconds_sum{ip_family="IPv6"} 0.25
kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv6"} 1
kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"} 3
kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv6"} 0
kubeproxy_network_programming_duration_seconds_sum{ip_family="a } b"} 1e+01 1700000000000
kubeproxy_network_programming_duration_seconds_count{ip_family="a } b"} 4
kubeproxy_sync_partial_proxy_rules_duration_seconds_sum NaN
go_goroutines 90
"""


def test_metrics_are_summed_over_families() -> None:
    metrics = parse_metrics(METRICS)
    assert metrics.sync_failures == 3
    assert metrics.full_syncs == SyncDurations(count=3, sum_s=1.75)
    assert metrics.network_programming == SyncDurations(count=4, sum_s=10.0)
    assert metrics.partial_syncs is None


def test_absent_metrics_are_unknown_not_zero() -> None:
    assert parse_metrics("").sync_failures is None


@given(st.lists(st.one_of(st.sampled_from(METRICS.splitlines()), st.text(max_size=80))), st.integers(0, 90))
def test_no_metrics_text_is_an_error(lines: list[str], cut: int) -> None:
    parse_metrics("\n".join(lines))
    parse_metrics("\n".join(line[:cut] for line in lines))
