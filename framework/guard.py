"""The memory guard: a run stops before the machine itself runs out of memory.

A global OOM kill on the host would end a process of its own choice, the framework or somebody's editor, and
falsify whatever was being measured. So needs are estimated before anything is created (``require``), and
every waiting loop of a run asks ``check``, which ends the run with the reason when MemAvailable is low.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from framework.errors import KilonodeError, MissingRequirementError
from framework.units import GIB, mib

FLOOR_BYTES: Final = 1 * GIB
_MEMINFO: Final = Path("/proc/meminfo")


class MachineMemoryError(KilonodeError):
    """The machine's own memory is nearly gone; the run was stopped."""


def memory_available_bytes(meminfo: Path = _MEMINFO) -> int:
    """MemAvailable of /proc/meminfo: what can be used without swapping (proc(5))."""
    return _field(meminfo, "MemAvailable:")


def memory_total_bytes(meminfo: Path = _MEMINFO) -> int:
    return _field(meminfo, "MemTotal:")


def check(meminfo: Path = _MEMINFO, *, floor_bytes: int = FLOOR_BYTES) -> None:
    """Raises MachineMemoryError when less than ``floor_bytes`` are available."""
    available_bytes = memory_available_bytes(meminfo)
    if available_bytes < floor_bytes:
        raise MachineMemoryError(
            f"only {mib(available_bytes)} MiB of memory are available on this machine, "
            f"the run stops below {mib(floor_bytes)} MiB",
            remedy="use fewer nodes (--max-nodes) or a machine with more memory",
        )


def require(needed_bytes: int, *, what: str, meminfo: Path = _MEMINFO) -> None:
    """Raises MissingRequirementError when ``what`` would leave less than the floor available."""
    available_bytes = memory_available_bytes(meminfo)
    if available_bytes - needed_bytes < FLOOR_BYTES:
        raise MissingRequirementError(
            f"{what} needs about {mib(needed_bytes)} MiB and {mib(available_bytes)} MiB are available",
            remedy="use fewer nodes (--max-nodes) or a machine with more memory",
        )


def _field(meminfo: Path, name: str) -> int:
    for line in meminfo.read_text().split("\n"):
        found = re.fullmatch(rf"{name} +(\d+) kB", line, re.ASCII)
        if found is not None:
            return int(found[1]) * 1024
    raise KilonodeError(f"{meminfo} has no {name}", remedy="mount /proc")
