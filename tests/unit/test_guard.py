"""The run stops before the machine does."""

from __future__ import annotations

from pathlib import Path

import pytest

from framework import guard
from framework.errors import KilonodeError, MissingRequirementError
from framework.guard import FLOOR_BYTES, MachineMemoryError
from framework.units import GIB, MIB


def meminfo(folder: Path, available_bytes: int) -> Path:
    path = folder / "meminfo"
    path.write_text(
        f"MemTotal:       {24 * GIB // 1024} kB\nMemFree:          100 kB\n"
        f"MemAvailable:   {available_bytes // 1024} kB\nBuffers:             0 kB\n"
    )
    return path


def test_reads_bytes(tmp_path: Path) -> None:
    path = meminfo(tmp_path, 3 * GIB)
    assert guard.memory_available_bytes(path) == 3 * GIB
    assert guard.memory_total_bytes(path) == 24 * GIB


def test_this_machine_has_memory() -> None:
    assert 0 < guard.memory_available_bytes() < guard.memory_total_bytes()


def test_stops_below_the_floor_and_not_at_it(tmp_path: Path) -> None:
    guard.check(meminfo(tmp_path, FLOOR_BYTES))
    with pytest.raises(MachineMemoryError, match="only 1,023 MiB of memory are available") as caught:
        guard.check(meminfo(tmp_path, FLOOR_BYTES - MIB))
    assert not isinstance(caught.value, MissingRequirementError)


def test_the_floor_can_be_chosen(tmp_path: Path) -> None:
    path = meminfo(tmp_path, 100 * MIB)
    guard.check(path, floor_bytes=100 * MIB)
    with pytest.raises(MachineMemoryError, match="the run stops below 101 MiB"):
        guard.check(path, floor_bytes=101 * MIB)


def test_what_does_not_fit_is_refused_before_it_is_made(tmp_path: Path) -> None:
    path = meminfo(tmp_path, 4 * GIB)
    guard.require(4 * GIB - FLOOR_BYTES, what="a fleet of 10", meminfo=path)
    with pytest.raises(MissingRequirementError) as caught:
        guard.require(4 * GIB - FLOOR_BYTES + 1, what="a fleet of 100,000", meminfo=path)
    assert caught.value.what == "a fleet of 100,000 needs about 3,072 MiB and 4,096 MiB are available"
    assert "--max-nodes" in caught.value.remedy


def test_a_kernel_without_the_figure(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal: 1 kB\n")
    with pytest.raises(KilonodeError, match="has no MemAvailable"):
        guard.check(path)
