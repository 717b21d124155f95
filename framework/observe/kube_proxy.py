"""kube-proxy's own account of its syncs: its log at -v=2, and its metrics.

The log tells each sync's beginning (``Syncing nftables rules``), its size (``Reloading service nftables
data``), its failure (``nftables sync failed``, then ``Sync failed``) and its end (``SyncProxyRules
complete``); in iptables mode the first two name iptables, and the failure is ``Failed to execute
iptables-restore``. IPv4 and IPv6 sync at the same time and are told apart by ``ipFamily``. The messages are
the same from 1.33 to 1.37. A value with newlines, as nft's errors are, is written by klog over several lines,
between ``key=<`` and `` >``.

klog writes local time without a year; both come from the run's zero.
"""

from __future__ import annotations

import ast
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from framework.outcome import Family, ProxySync, Record

ENTRY_CHARS_MAX: Final = 262_144
"""A longer log entry is cut: nft quotes a whole transaction line in its errors."""
_READ_BYTES: Final = 1 << 20
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
"""With its end. Python ends lines at form feeds and the like too, which may stand in one."""
POLL_S: Final = 1.0
"""Between two readings of a whole log."""

_ENTRY: Final = re.compile(
    r"[IWEF](?P<month>\d\d)(?P<day>\d\d) (?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)\.(?P<us>\d{6}) +"
    r"\d+ [^\]\s]+\] \"(?P<message>(?:[^\"\\]|\\.)*)\"(?P<values>.*)",
    re.DOTALL | re.ASCII,
)
_VALUE: Final = re.compile(
    r" (?P<key>[^\s=\"]+)=(?:<\n(?P<lines>.*?)\n ?>|(?P<quoted>\"(?:[^\"\\]|\\.)*\")|(?P<bare>\S*))",
    re.DOTALL,
)
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|μs|ms|h|m|s)", re.ASCII)
_SECONDS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}

_FAMILIES: Final[dict[str, Family]] = {"IPv4": "IPv4", "IPv6": "IPv6"}


_BEGINNINGS: Final = ("Syncing nftables rules", "Syncing iptables rules")


class LogEntry(NamedTuple):
    """One structured klog entry. ``at_s`` is seconds after the zero."""

    at_s: float
    message: str
    values: dict[str, str]


def parse_entry(text: str, zero: datetime) -> LogEntry | None:
    """The entry in ``text`` (its continuation lines included), None when it is no structured klog entry.

    ``zero`` is the run's zero as an aware time in kube-proxy's time zone.
    """
    found = _ENTRY.match(text)
    if found is None:
        return None
    at = _nearest(found, zero)
    if at is None:
        return None
    values = {value["key"]: _text_of(value) for value in _VALUE.finditer(found["values"])}
    return LogEntry((at - zero).total_seconds(), found["message"], values)


def _nearest(found: re.Match[str], zero: datetime) -> datetime | None:
    """The entry's time in the year that brings it nearest to ``zero``; None when it is no time."""
    month, day, hour, minute, second, us = map(int, found.groups()[:6])
    times = []
    for year in (zero.year - 1, zero.year, zero.year + 1):
        with suppress(ValueError):
            times.append(datetime(year, month, day, hour, minute, second, us, tzinfo=zero.tzinfo))
    return min(times, key=lambda time: abs(time - zero), default=None)


def _text_of(value: re.Match[str]) -> str:
    if value["lines"] is not None:
        return "\n".join(line.removeprefix("\t") for line in value["lines"].split("\n"))
    if value["quoted"] is None:
        return value["bare"]
    try:
        return str(ast.literal_eval(value["quoted"]))
    except (SyntaxError, ValueError):
        return value["quoted"][1:-1]


def parse_duration_s(text: str | None) -> float | None:
    """Seconds in a Go duration such as ``1m30.5s`` or ``1.2ms``; None when it is none."""
    if not text or _DURATION_PART.sub("", text):
        return None
    return sum(float(amount) * _SECONDS[unit] for amount, unit in _DURATION_PART.findall(text))


@dataclass
class _Running:
    """A sync whose end was not logged yet."""

    family: Family
    started_at_s: float
    full: bool
    services: int | None = None
    endpoints: int | None = None
    error: str | None = None
    retry_after_s: float | None = None

    def ended(self, at_s: float | None = None, elapsed_s: float | None = None) -> ProxySync:
        """With the elapsed time known, the start is taken from it: its log line comes a little late."""
        started_at_s = self.started_at_s
        if at_s is not None and elapsed_s is not None:
            started_at_s = at_s - elapsed_s
        return ProxySync(
            started_at_s=started_at_s,
            ended_at_s=at_s,
            family=self.family,
            full=self.full,
            services=self.services,
            endpoints=self.endpoints,
            elapsed_s=elapsed_s,
            error=self.error,
            retry_after_s=self.retry_after_s,
        )


class SyncParser:
    """Turns kube-proxy's log into syncs; takes the text in pieces of any size."""

    def __init__(self, zero: datetime) -> None:
        self._zero = zero
        self._rest = ""
        self._entry = ""
        self._open_value = False
        self._ended: list[ProxySync] = []
        self._running: dict[Family, _Running] = {}

    @property
    def syncs(self) -> tuple[ProxySync, ...]:
        """All syncs in order of their ends; those under way come last, with ``ended_at_s`` None."""
        return (*self._ended, *(running.ended() for running in self._running.values()))

    def feed(self, text: str) -> None:
        """Take the next piece. A last line without its newline waits for the rest."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take_line(line)
        self._rest = self._rest[-ENTRY_CHARS_MAX:]

    def _take_line(self, line: str) -> None:
        """A multi-line value stays open until its closing line, or until the next entry begins."""
        if self._open_value and _ENTRY.match(line) is None:
            self._entry = f"{self._entry}\n{line}"[:ENTRY_CHARS_MAX]
            if not re.match(r" ?>", line):
                return
        elif self._open_value:
            self._finish_entry()
            self._entry = line
        else:
            self._entry = line
        self._open_value = self._entry.endswith("=<") or line.endswith("=<")
        if not self._open_value:
            self._finish_entry()

    def _finish_entry(self) -> None:
        self._open_value = False
        entry = parse_entry(self._entry, self._zero)
        if entry is not None:
            self._take_entry(entry)

    def _take_entry(self, entry: LogEntry) -> None:
        family = _FAMILIES.get(entry.values.get("ipFamily", ""))
        if family is None:
            return
        if entry.message in _BEGINNINGS:
            self._begin(family, entry)
        elif family in self._running:
            self._continue(self._running[family], entry)

    def _begin(self, family: Family, entry: LogEntry) -> None:
        interrupted = self._running.pop(family, None)
        if interrupted is not None:
            self._ended.append(interrupted.ended())
        full = entry.values.get("fullSync") == "true"
        self._running[family] = _Running(family, entry.at_s, full)

    def _continue(self, running: _Running, entry: LogEntry) -> None:
        values = entry.values
        match entry.message:
            case "Reloading service nftables data" | "Reloading service iptables data":
                running.services = _count(values.get("numServices"))
                running.endpoints = _count(values.get("numEndpoints"))
            case (
                "nftables sync failed"
                | "Failed to execute iptables-restore"
                | "Failed to ensure chain exists"
                | "Failed to ensure chain jumps"
            ):
                running.error = values.get("err", "")
            case "Sync failed":
                running.retry_after_s = parse_duration_s(values.get("retryingTime"))
                running.error = running.error if running.error is not None else "Sync failed"
            case "SyncProxyRules complete":
                del self._running[running.family]
                self._ended.append(running.ended(entry.at_s, parse_duration_s(values.get("elapsed"))))


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def zero_in_local_time(zero_boottime_s: float, now_boottime_s: float) -> datetime:
    """The wall-clock time, in this machine's zone, at which CLOCK_BOOTTIME read ``zero_boottime_s``."""
    return datetime.now().astimezone() - timedelta(seconds=now_boottime_s - zero_boottime_s)


class LogText(Protocol):
    """A log that is read further at each call."""

    def more(self) -> Iterator[str]:
        """What was written since the last call, in whole lines."""


class FileText:
    """A file; it may not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._undecoded = b""

    def more(self) -> Iterator[str]:
        for piece in self._new_bytes():
            whole, newline, rest = (self._undecoded + piece).rpartition(b"\n")
            self._undecoded = rest
            yield (whole + newline).decode(errors="replace")

    def _new_bytes(self) -> Iterator[bytes]:
        try:
            log = self._path.open("rb")
        except FileNotFoundError:
            return
        with log:
            log.seek(self._offset)
            while piece := log.read(_READ_BYTES):
                self._offset += len(piece)
                yield piece


class ContainerText:
    """What containers write, as kubelet's container runtime keeps it; found by a pattern below a folder.

    Each start of a container has a file of its own, and each line a time, a stream and a tag before it; one
    that is longer than the runtime's buffer is in parts, of which the last is tagged F (full).
    """

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder = folder
        self._pattern = pattern
        self._files: dict[Path, FileText] = {}
        self._part = ""

    def more(self) -> Iterator[str]:
        for path in sorted(self._folder.glob(self._pattern)):
            self._files.setdefault(path, FileText(path))
        for file in self._files.values():
            for text in file.more():
                yield "".join(map(self._bare, _LINE.findall(text)))

    def _bare(self, line: str) -> str:
        """The container's own text; empty for a part that goes on in the next line."""
        _, _, rest = line.partition(" ")
        _, _, rest = rest.partition(" ")
        tag, _, text = rest.partition(" ")
        if tag == "P":
            self._part += text.removesuffix("\n")
            return ""
        whole, self._part = self._part + text, ""
        return whole


class PolledText:
    """A log that is asked for again and again, from its last line on, as often as each ``POLL_S`` at most.

    ``read_since(stamp)`` gives lines that each begin with a time, whose texts sort as the times do, and a
    space; among them may be some of before ``stamp``, and with an empty one are all.
    """

    def __init__(self, read_since: Callable[[str], str]) -> None:
        self._read_since = read_since
        self._last = ""
        self._next_s = 0.0

    def more(self) -> Iterator[str]:
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + POLL_S
        for line in _LINE.findall(self._read_since(self._last)):
            stamp, _, text = line.partition(" ")
            if stamp > self._last:
                self._last = stamp
                yield text


class ProxyLog:
    """kube-proxy's log, read further at each call. ``zero`` is the run's in the log's time zone."""

    def __init__(self, text: LogText, zero: datetime) -> None:
        self._text = text
        self._parser = SyncParser(zero)

    def syncs(self) -> tuple[ProxySync, ...]:
        """The syncs in all that was written so far; see ``SyncParser.syncs``."""
        for piece in self._text.more():
            self._parser.feed(piece)
        return self._parser.syncs


class SyncDurations(Record, frozen=True):
    """A histogram without its buckets: how many, and how long in all."""

    count: int
    sum_s: float


class ProxyMetrics(Record, frozen=True):
    """The metrics of kube-proxy that matter here, summed over their labels; None where absent."""

    sync_failures: int | None
    full_syncs: SyncDurations | None
    partial_syncs: SyncDurations | None
    network_programming: SyncDurations | None


_SAMPLE: Final = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{.*\})?\s+(?P<value>\S+)", re.ASCII)
_PREFIX: Final = "kubeproxy_"
_FAILURES: Final = (
    "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
    "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
)
"""One for each mode."""


def parse_metrics(text: str) -> ProxyMetrics:
    """Read the Prometheus text of kube-proxy's /metrics; unknown and malformed lines are skipped."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        sample = _SAMPLE.match(line) if line.startswith(_PREFIX) else None
        value = _finite(sample["value"]) if sample is not None else None
        if sample is not None and value is not None:
            sums[sample["name"]] = sums.get(sample["name"], 0.0) + value
    sums = {name: total for name, total in sums.items() if math.isfinite(total)}
    failures = [sums[name] for name in _FAILURES if name in sums]
    return ProxyMetrics(
        sync_failures=int(sum(failures)) if failures else None,
        full_syncs=_durations(sums, "kubeproxy_sync_full_proxy_rules_duration_seconds"),
        partial_syncs=_durations(sums, "kubeproxy_sync_partial_proxy_rules_duration_seconds"),
        network_programming=_durations(sums, "kubeproxy_network_programming_duration_seconds"),
    )


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _durations(sums: dict[str, float], name: str) -> SyncDurations | None:
    count, total = sums.get(f"{name}_count"), sums.get(f"{name}_sum")
    return SyncDurations(count=int(count), sum_s=total) if count is not None and total is not None else None
