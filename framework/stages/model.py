"""What a load of nft holds at each of its stages: the records that ``kilonode stages --json`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from framework.outcome import Measure, Record, Ruleset
from framework.versioned_file import load_versioned, write_versioned

FORMAT: Final = 2
"""Format 1 had the parsed tree in one figure, and nothing of the kernel."""


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

    ``input`` is the buffer that the transaction's text is read into, ``parsed`` the tree that the parser
    makes of it (commands, rules, statements, expressions), and ``evaluated`` what libnftables makes after
    that: evaluation puts much of it in the place of what was parsed. ``cache`` is what nft read back from
    the kernel. ``structures`` are libnftnl's objects, which are serialized for the kernel, and ``netlink``
    the buffers that they are serialized into. ``other`` does not depend on the transaction.
    """

    input_bytes: int = 0
    parsed_bytes: int = 0
    evaluated_bytes: int = 0
    cache_bytes: int = 0
    structures_bytes: int = 0
    netlink_bytes: int = 0
    other_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return sum(getattr(self, name) for name in self.__struct_fields__)

    @property
    def tree_bytes(self) -> int:
        """nft's own structures: the parsed tree, with what evaluation made of it."""
        return self.parsed_bytes + self.evaluated_bytes

    @property
    def beyond_parser_bytes(self) -> int:
        """The objects that nft has beyond the parser's: evaluation's, the cache's and libnftnl's.

        How evaluation and cache share them depends on what was loaded before: a chain that is in the kernel
        already comes with the cache. The sum does not.
        """
        return self.evaluated_bytes + self.cache_bytes + self.structures_bytes


class KernelMemory(Record, frozen=True, kw_only=True):
    """Kernel memory that is charged to the cgroup in which nft loads, and no part of nft's own.

    ``after`` is what the ruleset takes when nft has ended, ``peak`` the most while it loaded: there the
    objects of the ruleset before stand beside the new ones.
    """

    after_bytes: int
    peak: Measure


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
    ``rss_peak_in_node`` that of the original load, by kube-proxy in its node; ``ruleset`` is what the kernel
    listed there.
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
    kernel: KernelMemory
    ruleset: Ruleset | None

    @property
    def parse_ratio(self) -> float:
        """The parsed tree, when a snapshot saw most of it, over the file; so at least that."""
        return self.heap.most.parsed_bytes / self.transaction.size_bytes

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
    return load_versioned(path, StagesFile, formats=(FORMAT,), made_by="`kilonode stages --json`")


def write_stages(path: Path, runs: Sequence[StagesRun]) -> None:
    """Write ``runs`` for ``load_stages``."""
    write_versioned(path, StagesFile(format=FORMAT, runs=tuple(runs)))
