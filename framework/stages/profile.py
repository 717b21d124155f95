"""One load of the real nft, profiled: where its memory is at its peak.

massif (of valgrind) sees every call of malloc with the calls that led to it. The same load is run again
without it, because a profile says nothing of resident memory: there the kernel's exit record gives the peak.
An nft that loads nothing tells what the program and its libraries need anyhow. What netlink buffers really
held is told by the return value of ``sendmsg``, which valgrind traces.

Each run has a network namespace of its own, with the tables that a kubelet makes, for each of which nft
allocates half a MiB whatever is in it, and into which the transactions were loaded that came before: a
transaction is written for a ruleset, and nft reads some of that ruleset back.
"""

from __future__ import annotations

import platform
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from framework import guard, network
from framework.binaries import Binary
from framework.binaries.system import package_version
from framework.cgroup import MemoryCgroup, memory_cgroup
from framework.errors import KilonodeError, MissingRequirementError
from framework.ledger import Cgroup, Folder, Ledger, Netns, Thing
from framework.observe import CgroupSampler, open_recorder
from framework.outcome import Measure
from framework.preflight import PROFILER
from framework.process import inside, run
from framework.stages.attribution import heap_profile
from framework.stages.massif import parse_massif
from framework.stages.model import HeapProfile, KernelMemory

PROFILE_TIMEOUT_S: Final = 1800.0
"""100,000 endpoints of kube-proxy 1.35 take a minute on an idle machine."""
LOAD_TIMEOUT_S: Final = 300.0
PROFILER_BYTES_PER_BYTE: Final = 60
"""Memory of valgrind with nft in it for each byte of the transaction: 30 at 100,000 endpoints of 1.35.0."""
KUBELETS_TABLES: Final = "".join(
    f"add table {family} {table}\n" for family in ("ip", "ip6") for table in ("mangle", "nat", "filter")
).encode()
"""Those of iptables in which kubelet has its chains (pkg/kubelet/kubelet_network_linux.go)."""
_MASSIF: Final = (
    "--tool=massif",
    "--time-unit=i",
    "--threshold=0",
    "--detailed-freq=1",
    "--max-snapshots=100",
    "--peak-inaccuracy=0",
    "--depth=30",
    "--trace-syscalls=yes",
)
"""Every snapshot with its whole tree, and the peak where it really is."""
_SEND: Final = re.compile(r"\((\d+)\) sys_sendmsg ")
_SENT: Final = re.compile(r"\((?P<call>\d+)\) \.\.\. \[async\] --> Success\(0x(?P<bytes>[0-9a-f]+)\)")
_LIBRARIES: Final = re.compile(r"(libnftables|libnftnl|libmnl)\.so\S* => (\S+)")


@dataclass(frozen=True)
class Load:
    """A transaction, and those that were loaded before it."""

    transaction: Path
    earlier: tuple[Path, ...] = ()


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one load."""

    heap: HeapProfile
    rss_peak: Measure
    rss_idle: Measure
    kernel: KernelMemory


def require_profiler() -> None:
    """Raises MissingRequirementError where there is no valgrind."""
    if shutil.which(PROFILER) is None:
        raise MissingRequirementError(
            f"nft's stages are profiled with {PROFILER}, which is not here",
            where="PATH",
            remedy=f"run `kilonode setup --profiler` as root, or apt-get install {PROFILER}",
        )


def profiled_versions(nft: Binary) -> dict[str, str]:
    """The exact versions that a profile depends on."""
    libraries = _LIBRARIES.findall(run(["ldd", nft.path]).text)
    paths = {name: Path(path) for name, path in libraries}
    profiler = shutil.which(PROFILER)
    if profiler is not None:
        paths[PROFILER] = Path(profiler)
    found = {name: package_version(path) or "unknown" for name, path in paths.items()}
    return {"nft": nft.version, **found, "kernel": platform.release()}


def profile_load(load: Load, *, nft: Path, ledger: Ledger) -> Profile:
    """Run ``load`` with and without the profiler.

    Raises CommandError where nft refuses a transaction, TimeLimitError, and MissingRequirementError where
    there is no valgrind or too little memory.
    """
    require_profiler()
    size_bytes = load.transaction.stat().st_size
    guard.require(size_bytes * PROFILER_BYTES_PER_BYTE, what=f"{PROFILER} on {size_bytes:,} bytes for nft")
    with _Bench(ledger, nft) as bench:
        idle = bench.resident_peak(b"")
        bench.replay(load.earlier)
        peak, kernel = bench.memory(load.transaction.read_bytes())
        bench.renew()
        bench.replay(load.earlier)
        return Profile(heap=bench.heap(load.transaction), rss_peak=peak, rss_idle=idle, kernel=kernel)


def resident_peak(load: Load, *, nft: Path, ledger: Ledger) -> Measure:
    """The peak of the resident memory of ``load``'s nft, in a cgroup of its own.

    It meets the ruleset that the earlier transactions left, beside kubelet's tables. Raises CommandError
    where nft refuses a transaction, and TimeLimitError.
    """
    with _Bench(ledger, nft) as bench:
        bench.replay(load.earlier)
        return bench.resident_peak(load.transaction.read_bytes())


def sent_bytes(trace: str) -> int:
    """The bytes that the kernel took in ``sendmsg``, from a trace of valgrind's."""
    calls = set(_SEND.findall(trace))
    return sum(int(found["bytes"], 16) for found in _SENT.finditer(trace) if found["call"] in calls)


class _Bench:
    """A place for loads: a network namespace, a cgroup and a folder, removed at its end."""

    def __init__(self, ledger: Ledger, nft: Path) -> None:
        self._ledger = ledger
        self._nft = nft
        self._name = f"kilonode-{ledger.run_id}-stages"
        self._folder = ledger.folder / "stages"
        self._cgroup: MemoryCgroup = memory_cgroup(self._name)
        self._things: list[Thing] = []

    def __enter__(self) -> _Bench:
        self._make(Folder(str(self._folder)), lambda: self._folder.mkdir(mode=0o700))
        self._make(Cgroup(self._name), self._cgroup.create)
        self._make(Netns(self._name), self._add_netns)
        return self

    def __exit__(self, *_: object) -> None:
        self._ledger.remove(self._things, whose="profiling", where=self._name)

    def _make(self, thing: Thing, make: Callable[[], object]) -> None:
        self._ledger.record(thing)
        self._things.append(thing)
        make()

    def _add_netns(self) -> None:
        network.add_netns(self._name)
        self._load([str(self._nft)], KUBELETS_TABLES, LOAD_TIMEOUT_S)

    def renew(self) -> None:
        """The ruleset of a node without kube-proxy."""
        network.delete_netns(self._name)
        self._add_netns()

    def replay(self, transactions: Sequence[Path]) -> None:
        for transaction in transactions:
            self._load([str(self._nft)], transaction.read_bytes(), LOAD_TIMEOUT_S)

    def memory(self, transaction: bytes) -> tuple[Measure, KernelMemory]:
        """The peak of the resident memory of one load, and the kernel memory that it takes besides."""
        has_own_peak = self._cgroup.reset_peaks()
        with CgroupSampler(self._cgroup, time.clock_gettime(time.CLOCK_BOOTTIME)) as sampler:
            resident = self.resident_peak(transaction)
            reading = self._cgroup.read()
            peak = sampler.kernel_bytes_peak
        if has_own_peak and reading.kernel_bytes_peak is not None:
            peak = Measure(value=reading.kernel_bytes_peak, source="cgroup_counter", bound="exact")
        return resident, KernelMemory(after_bytes=reading.kernel_bytes, peak=peak)

    def resident_peak(self, transaction: bytes) -> Measure:
        """The peak of the resident memory of one load."""
        zero_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        with open_recorder(zero_s) as recorder:
            recorder.watch(self._cgroup)
            self._load([str(self._nft)], transaction, LOAD_TIMEOUT_S)
            ended = [record for record in recorder.exits(self._cgroup) if record.comm == self._nft.name]
            lost = recorder.lost
        if not ended or lost:
            raise KilonodeError(
                "nft's exit record was lost",
                where="exit accounting",
                remedy="try again on a less busy machine",
            )
        last = ended[-1]
        return Measure(value=last.memory_bytes_peak, source=last.source, bound=last.bound)

    def heap(self, transaction: Path) -> HeapProfile:
        """The heap of one load under massif."""
        output, trace = self._folder / "massif.out", self._folder / "trace.log"
        argv = [PROFILER, *_MASSIF, f"--massif-out-file={output}", f"--log-file={trace}", str(self._nft)]
        self._load(argv, transaction.read_bytes(), PROFILE_TIMEOUT_S)
        return heap_profile(parse_massif(output.read_text()), sent_bytes(trace.read_text()))

    def _load(self, argv: Sequence[str], transaction: bytes, timeout_s: float) -> None:
        run(
            inside([*argv, "-f", "-"], cgroup_procs=self._cgroup.procs_path, netns=self._name),
            stdin=transaction,
            timeout_s=timeout_s,
            env={"VALGRIND_OPTS": ""},
            cwd=self._folder,
            remedy="give the transactions before this one too: each is written for the ruleset that is there",
        )
