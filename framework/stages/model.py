"""What a load of nft holds at each of its stages: the records that ``kilonode stages --json`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from framework.errors import BadInputError
from framework.outcome import Measure, Record

FORMAT: Final = 1


class Transaction(Record, frozen=True, kw_only=True):
    """One standard input of ``nft -f -``, with what is counted in its text.

    ``endpoints`` are distinct pairs of address and port that it sends connections to.
    """

    size_bytes: int
    sha256: str
    chains: int
    rules: int
    endpoints: int


class StageBytes(Record, frozen=True, kw_only=True):
    """What nft had asked its heap for, by what it is.

    ``input`` is the buffer that the transaction's text is read into, ``parse_tree`` all else that
    libnftables makes of it (commands, rules, statements, expressions), before and after evaluation.
    ``cache`` is what nft read back from the kernel. ``structures`` are libnftnl's objects, which are
    serialized for the kernel, and ``netlink`` the buffers that they are serialized into. ``other`` does not
    depend on the transaction.
    """

    input_bytes: int = 0
    parse_tree_bytes: int = 0
    cache_bytes: int = 0
    structures_bytes: int = 0
    netlink_bytes: int = 0
    other_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return sum(getattr(self, name) for name in self.__struct_fields__)


class HeapProfile(Record, frozen=True, kw_only=True):
    """The heap of one load.

    ``peak`` is the moment at which it held most, ``admin_bytes`` what malloc's administration adds then (an
    estimate of massif's). ``most`` is the most of each stage in any snapshot, so a lower bound.
    ``batch_began`` is the first snapshot with a netlink buffer. ``sent_bytes`` is what the kernel took from
    the netlink buffers.
    """

    peak: StageBytes
    admin_bytes: int
    most: StageBytes
    batch_began: StageBytes
    sent_bytes: int
    snapshots: int


class StagesRun(Record, frozen=True, kw_only=True):
    """One load, profiled, and run again without a profiler.

    ``kube_proxy`` and ``endpoints_asked`` are None for a transaction of unknown origin. ``earlier`` is how
    many transactions were loaded before it, so that it met the ruleset that it was written for.
    ``rss_peak`` is of the run without a profiler, ``rss_idle`` that of an nft which loads nothing, and
    ``rss_peak_in_node`` that of the original load, by kube-proxy in its node.
    """

    made_utc: str
    command: str
    obtained: str
    kube_proxy: str | None
    endpoints_asked: int | None
    versions: dict[str, str]
    transaction: Transaction
    earlier: int
    heap: HeapProfile
    rss_peak: Measure
    rss_idle: Measure
    rss_peak_in_node: Measure | None

    @property
    def parse_ratio(self) -> float:
        """The parsed tree over the file."""
        return self.heap.peak.parse_tree_bytes / self.transaction.size_bytes

    @property
    def untouched_bytes(self) -> int:
        """What was asked for and never written, and so is not resident: the rest of each kind of buffer.

        The input buffer doubles when it is full, and each netlink buffer has room for a message more than it
        is filled with.
        """
        peak = self.heap.peak
        of_input = peak.input_bytes - min(peak.input_bytes, self.transaction.size_bytes)
        return of_input + peak.netlink_bytes - min(peak.netlink_bytes, self.heap.sent_bytes)

    @property
    def structures_bytes_bound(self) -> int:
        """What libnftnl's objects can have held at most between two snapshots.

        The heap never held more than at its peak, and from the first netlink buffer on all else only grows
        until it is sent.
        """
        began = self.heap.batch_began
        return self.heap.peak.total_bytes - (began.total_bytes - began.structures_bytes)

    @property
    def accounted_bytes(self) -> int:
        """What the heap's peak says the resident memory is, program and libraries included."""
        return self.rss_idle.value + self.heap.peak.total_bytes + self.heap.admin_bytes - self.untouched_bytes

    @property
    def unaccounted_bytes(self) -> int:
        """What the resident memory is beyond that: fragments, and what massif's estimate is off."""
        return self.rss_peak.value - self.accounted_bytes


class StagesFile(Record, frozen=True, kw_only=True):
    """What ``kilonode stages --json`` writes."""

    format: int
    runs: tuple[StagesRun, ...]


def load_stages(path: Path) -> StagesFile:
    """Read a file that ``kilonode stages --json`` wrote. Raises BadInputError where it can't."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=StagesFile)
    except (OSError, msgspec.DecodeError) as error:
        raise BadInputError(
            f"nft's stages can't be read: {error}",
            where=str(path),
            remedy="give a file that `kilonode stages --json` wrote",
        ) from error
    if found.format != FORMAT:
        raise BadInputError(
            f"the file has format {found.format}, this kilonode reads {FORMAT}",
            where=str(path),
            remedy="record it again with `kilonode stages --json`",
        )
    return found


def write_stages(path: Path, runs: Sequence[StagesRun]) -> None:
    """Write ``runs`` for ``load_stages``."""
    text = msgspec.json.format(msgspec.json.encode(StagesFile(format=FORMAT, runs=tuple(runs))), indent=2)
    path.write_bytes(text + b"\n")
