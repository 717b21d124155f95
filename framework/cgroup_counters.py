"""What a memory cgroup's files say, wherever they were read: here, or by a command on another machine.

The two versions differ in file names and in what they count: version 1 keeps a high-water mark of kernel
memory and counts an OOM kill in the victim's cgroup alone; version 2 counts kills hierarchically, and keeps
no high-water mark of kernel memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from framework.outcome import Record

CgroupMode = Literal["v1", "v2"]

V1_NO_LIMIT_BYTES: Final = 1 << 62
"""Version 1 shows "no limit" as the largest multiple of the page size below 2^63; no limit comes near."""
_V2_KERNEL_PARTS: Final = ("kernel_stack", "pagetables", "percpu", "sock", "slab")
_STAT: Final = {
    "v1": re.compile(r"^total_(cache|rss) (\d+)$", re.MULTILINE),
    "v2": re.compile(rf"^(anon|file|kernel|{'|'.join(_V2_KERNEL_PARTS)}) (\d+)$", re.MULTILINE),
}
_OOM_KILL: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class Files(NamedTuple):
    """The names of a version's counter files; None for one that it hasn't."""

    charged: str
    stat: str
    limit: str
    events: str
    charged_peak: str
    kernel: str | None
    kernel_peak: str | None

    @property
    def peaks(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.charged_peak, self.kernel_peak)))

    @property
    def figures(self) -> tuple[str, ...]:
        """What ``figures_of`` wants, in its order."""
        return tuple(filter(None, (self.charged, self.stat, self.kernel)))


FILES: Final[dict[CgroupMode, Files]] = {
    "v1": Files(
        charged="memory.usage_in_bytes",
        stat="memory.stat",
        limit="memory.limit_in_bytes",
        events="memory.oom_control",
        charged_peak="memory.max_usage_in_bytes",
        kernel="memory.kmem.usage_in_bytes",
        kernel_peak="memory.kmem.max_usage_in_bytes",
    ),
    "v2": Files(
        charged="memory.current",
        stat="memory.stat",
        limit="memory.max",
        events="memory.events",
        charged_peak="memory.peak",
        kernel=None,
        kernel_peak=None,
    ),
}


class CgroupReading(Record, frozen=True):
    """The counters of a memory cgroup, with all cgroups below it.

    ``charged_bytes`` is what the limit applies to (anonymous + file + kernel memory); the peaks are the
    kernel's own high-water marks, None where this kernel has none. ``limit_bytes`` is None for no limit.
    """

    mode: CgroupMode
    charged_bytes: int
    charged_bytes_peak: int | None
    anonymous_bytes: int
    file_bytes: int
    kernel_bytes: int
    kernel_bytes_peak: int | None
    limit_bytes: int | None
    oom_kills: int


class MemoryFigures(NamedTuple):
    """The four figures of a fast reading, in bytes."""

    charged_bytes: int
    anonymous_bytes: int
    file_bytes: int
    kernel_bytes: int


def figures_of(mode: CgroupMode, charged: str, stat: str, kernel: str = "") -> MemoryFigures:
    """The figures in the texts of ``Files.figures``.

    Kernels before 5.18 have no ``kernel`` line in version 2; there its parts are summed.
    """
    found = dict(_STAT[mode].findall(stat))
    if mode == "v1":
        return MemoryFigures(int(charged), int(found["rss"]), int(found["cache"]), int(kernel))
    parts = sum(int(found.get(part, 0)) for part in _V2_KERNEL_PARTS)
    return MemoryFigures(
        int(charged), int(found["anon"]), int(found["file"]), int(found.get("kernel", parts))
    )


def oom_kills_of(events: str) -> int:
    """The kills in the text of ``Files.events``; 0 where the kernel doesn't count them (before 4.13)."""
    found = _OOM_KILL.search(events)
    return int(found[1]) if found else 0


def reading_of(mode: CgroupMode, texts: Mapping[str, str], *, oom_kills: int) -> CgroupReading:
    """The counters in the texts of a version's files, by name. Raises KeyError without those of figures."""
    files = FILES[mode]
    figures = figures_of(mode, *(texts[name] for name in files.figures))
    limit = _number(texts, files.limit)
    return CgroupReading(
        mode=mode,
        charged_bytes=figures.charged_bytes,
        charged_bytes_peak=_number(texts, files.charged_peak),
        anonymous_bytes=figures.anonymous_bytes,
        file_bytes=figures.file_bytes,
        kernel_bytes=figures.kernel_bytes,
        kernel_bytes_peak=_number(texts, files.kernel_peak),
        limit_bytes=None if limit is None or limit >= V1_NO_LIMIT_BYTES else limit,
        oom_kills=oom_kills,
    )


def _number(texts: Mapping[str, str], name: str | None) -> int | None:
    """A file's only number; None where there is no such file, and for ``max``."""
    text = texts.get(name, "").strip() if name is not None else ""
    return int(text) if text.isascii() and text.isdigit() else None
