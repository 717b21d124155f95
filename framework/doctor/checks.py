"""What the facts of a machine mean for whoever wants to measure on it. Pure but for ``require_machine``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal

from framework.doctor.facts import Facts, look
from framework.errors import MissingRequirementError
from framework.ground import BYTES_PER_FAKE, CONTROL_PLANE_BYTES
from framework.guard import FLOOR_BYTES
from framework.preflight import PROTOCOLS
from framework.spec import Spec
from framework.units import GIB, MIB, mib

State = Literal["good", "warning", "bad"]
Use = Literal["measure", "size", "kind", "iptables", "stages"]
"""What a bad fact keeps from running: any measurement, one of the asked size, or one of these alone."""

NODE_BYTES: Final = 512 * MIB
"""What a node of 2 GiB holds for sure (``framework.lab`` asks for a quarter of its limit)."""
STATE_BYTES: Final = GIB
"""etcd's data, private copies of executables (450 MiB) and logs of one run."""
DISK_BYTES_PER_FAKE: Final = 12_000
"""etcd's data of a fleet of 100,000 is 1 GiB and a little more, in its snapshot and where it runs."""
BUILD_BYTES: Final = 15 * GIB
"""Go's modules and build cache for every default executable, and these themselves."""
NODES_TRIED: Final = 100_000
"""The largest fleet that was ever measured with."""
RUNS_BYTES: Final = 200 * MIB
PRODUCTION_NFT: Final = "1.0.6"
"""kube-proxy's official images have Debian 12's."""


class Asked(Spec, frozen=True, kw_only=True):
    """What shall be measured: how many fake nodes at most; with none, a control plane and a node."""

    nodes: int

    @property
    def memory_bytes(self) -> int:
        """The control plane with its fleet, and one node."""
        return CONTROL_PLANE_BYTES + self.nodes * BYTES_PER_FAKE + NODE_BYTES


class Check(Spec, frozen=True, kw_only=True):
    """One fact, judged. ``blocks`` is what a bad one keeps from running; a warning blocks nothing."""

    name: str
    state: State
    found: str
    remedy: str = ""
    blocks: Use | None = None


UNTRIED: Final = Check(
    name="kernel",
    state="warning",
    found="namespaces, nft's rules, cgroups and the kernel's records were not tried, which takes root",
    remedy="run `kilonode doctor` as root too",
)


class Ability(Spec, frozen=True, kw_only=True):
    """Something that can be run here as it is, or why not."""

    what: str
    can: bool
    why_not: str = ""


def examine(facts: Facts, asked: Asked) -> tuple[Check, ...]:
    """Every check, in the order in which a run would meet it."""
    return (
        *_privilege_checks(facts),
        *(_tried_checks(facts) if facts.is_root else (UNTRIED,)),
        *_memory_checks(facts, asked),
        *_place_checks(facts, asked),
        *_source_checks(facts),
        *_optional_checks(facts),
        *_neighbour_checks(facts),
    )


def abilities(checks: tuple[Check, ...], facts: Facts, asked: Asked) -> tuple[Ability, ...]:
    """What can be run, by the bad ones among ``checks``."""
    measure = _why_not(checks, "measure")
    largest = nodes_max(facts)
    return (
        _ability("reports, forecasts from shipped models, `--cluster existing`, unit tests", ""),
        _ability(
            f"pytest -k scenario --max-nodes {asked.nodes}",
            measure or _why_not(checks, "size"),
        ),
        _ability(
            f"fleets for which there is memory: up to {largest:,} fake nodes (tried: {NODES_TRIED:,})",
            measure or ("" if largest else "memory"),
        ),
        _ability("kube-proxy in iptables mode", measure or _why_not(checks, "iptables")),
        _ability("--cluster kind", measure or _why_not(checks, "kind")),
        _ability("kilonode stages", measure or _why_not(checks, "stages")),
    )


def nodes_max(facts: Facts) -> int:
    """The largest fleet that fits the memory that is available now, in whole thousands beyond 1,000."""
    spare_bytes = facts.memory_available_bytes - FLOOR_BYTES - CONTROL_PLANE_BYTES - NODE_BYTES
    nodes = max(0, spare_bytes // BYTES_PER_FAKE)
    return int(nodes if nodes < 1000 else nodes // 1000 * 1000)


def keeps_from_measuring(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The bad ones that leave nothing to measure at the asked size."""
    return tuple(check for check in checks if check.blocks in {"measure", "size"})


def require_machine(runs: Path) -> None:
    """Raises MissingRequirementError that names everything that keeps this machine from measuring.

    Larger fleets ask for their memory when they are made.
    """
    bad = keeps_from_measuring(examine(look(runs, network_too=False), Asked(nodes=0)))
    if bad:
        raise MissingRequirementError(
            "; ".join(check.found for check in bad),
            where=", ".join(check.name for check in bad),
            remedy="; ".join(check.remedy for check in bad),
        )


def _ability(what: str, why_not: str) -> Ability:
    return Ability(what=what, can=not why_not, why_not=why_not)


def _why_not(checks: tuple[Check, ...], use: Use) -> str:
    return ", ".join(check.name for check in checks if check.blocks == use)


def _judged(name: str, refusal: str, good: str, remedy: str, *, blocks: Use = "measure") -> Check:
    """Bad with its ``refusal``, where there is one."""
    if refusal:
        return Check(name=name, state="bad", found=refusal, remedy=remedy, blocks=blocks)
    return Check(name=name, state="good", found=good)


def _privilege_checks(facts: Facts) -> Iterator[Check]:
    yield _judged(
        "privileges",
        "" if facts.is_root else "real nodes need root, for network namespaces, cgroups and exit accounting",
        "root",
        "run as root (sudo -E), or select the tests that need none with `pytest tests/unit`",
    )
    if facts.is_root and not facts.may_lower_oom_scores:
        yield Check(
            name="OOM scores",
            state="warning",
            found="no CAP_SYS_RESOURCE: no oom_score_adj can be lowered, all are shifted by +999",
            remedy="none is needed: where production's scores would choose another victim the verdict is "
            "unknown; give the capability (outside a container) for scores as they are",
        )
    packages = ", ".join(facts.packages_missing)
    nameless = "; without /etc/protocols kube-proxy does not find its own rules again"
    yield _judged(
        "packages",
        f"not installed, or not on PATH: {packages}{nameless if PROTOCOLS in facts.packages_missing else ''}"
        if packages
        else "",
        "every Debian package of a run is here",
        f"apt-get install {' '.join(facts.packages_missing)} (`kilonode setup` does); what is installed must "
        "be on PATH, /usr/sbin included",
    )


def _tried_checks(facts: Facts) -> Iterator[Check]:
    """What only root may try."""
    yield from _kernel_checks(facts)
    yield from _recording_checks(facts)
    yield _judged(
        "iptables mode",
        facts.iptables_refusal,
        "rules of kube-proxy's iptables mode are taken",
        "load the modules nft_compat, xt_* and nf_nat, or leave proxy_mode at nftables",
        blocks="iptables",
    )


def _kernel_checks(facts: Facts) -> Iterator[Check]:
    yield _judged(
        "kernel",
        f"namespaces or bridges can't be made: {facts.links_refusal}" if facts.links_refusal else "",
        f"{facts.kernel}, {facts.machine}: namespaces, bridges and veth pairs can be made",
        "run as root outside of a restricted container, on a kernel with CONFIG_BRIDGE and CONFIG_VETH",
    )
    yield _judged(
        "nft",
        f"rules as kube-proxy's are refused: {facts.nft_refusal}" if facts.nft_refusal else "",
        f"{facts.nft or 'unknown'}: rules as kube-proxy's are taken",
        "load the modules nf_tables, nft_fib, nft_numgen, nft_nat and nf_nat, or use a kernel that has them",
    )
    if not facts.nft_refusal and not facts.nft.startswith(PRODUCTION_NFT):
        yield Check(
            name="nft's version",
            state="warning",
            found=f"{facts.nft or 'unknown'}, while kube-proxy's official images have {PRODUCTION_NFT}",
            remedy="use Debian 12 for figures of production's nft; each result names its own",
        )
    yield _judged(
        "cgroup",
        facts.cgroup_refusal,
        f"memory cgroups {facts.cgroup_mode} can be made",
        "mount the memory controller writable (in a container: a cgroup namespace of its own and "
        "/sys/fs/cgroup read-write)",
    )


def _recording_checks(facts: Facts) -> Iterator[Check]:
    if facts.exits_refusal:
        yield Check(
            name="exit accounting",
            state="warning",
            found=f"{facts.exits_refusal}: processes are polled, each peak is a lower bound",
            remedy="run as root in the initial network and process namespaces, on a kernel with "
            "CONFIG_TASKSTATS, CONFIG_TASK_XACCT and CONFIG_PROC_EVENTS",
        )
    else:
        yield Check(name="exit accounting", state="good", found="the kernel reports every process that ends")
    yield _judged(
        "kernel log",
        facts.kernel_log_refusal,
        "OOM kills can be read in /dev/kmsg",
        "run as root, or set sysctl kernel.dmesg_restrict=0",
    )


def _memory_checks(facts: Facts, asked: Asked) -> Iterator[Check]:
    needed_bytes = asked.memory_bytes + FLOOR_BYTES
    short = facts.memory_available_bytes < needed_bytes
    what = f"{asked.nodes:,} fake nodes" if asked.nodes else "a control plane and one node"
    here = f"{mib(facts.memory_available_bytes)} MiB are available"
    yield _judged(
        "memory",
        f"{what} need {mib(needed_bytes)} MiB and {here}" if short else "",
        f"{what} need {mib(needed_bytes)} MiB, {here}",
        f"give --max-nodes {nodes_max(facts)} or less, or use a machine with more memory"
        if nodes_max(facts)
        else "use a machine with more memory",
        blocks="size",
    )
    if facts.swap_bytes:
        yield Check(
            name="swap",
            state="warning",
            found=f"{mib(facts.swap_bytes)} MiB of swap are on: a node may swap where production's would die",
            remedy="swapoff -a while it measures",
        )


def _place_checks(facts: Facts, asked: Asked) -> Iterator[Check]:
    fleet_bytes = asked.nodes * DISK_BYTES_PER_FAKE
    yield _judged(
        "state folder",
        facts.state_refusal
        or _short_of(facts.state_free_bytes, STATE_BYTES + fleet_bytes, facts.state_folder),
        f"{facts.state_folder}, {facts.state_free_bytes / GIB:.1f} GiB free",
        "set KILONODE_STATE_DIR to a short path on a disk with room",
    )
    cache_bytes = (BUILD_BYTES if facts.download_refusal else 0) + fleet_bytes
    yield _judged(
        "cache folder",
        _short_of(facts.cache_free_bytes, cache_bytes, facts.cache_folder),
        f"{facts.cache_folder}, {facts.cache_free_bytes / GIB:.1f} GiB free",
        "free space there, `kilonode snapshots --clear` for one, or set KILONODE_CACHE_DIR",
    )
    yield _judged(
        "run folder",
        _short_of(facts.runs_free_bytes, RUNS_BYTES, facts.runs_folder),
        f"{facts.runs_folder}, {facts.runs_free_bytes / GIB:.1f} GiB free",
        "free space there, or give --runs-dir",
    )
    yield _judged(
        "addresses",
        facts.addresses_refusal,
        "a /24 of 198.18.0.0/15 is free; ports of this host are not used, all listen in namespaces",
        "run `kilonode clean`, or remove the routes",
    )


def _short_of(free_bytes: int, needed_bytes: int, folder: str) -> str:
    if free_bytes >= needed_bytes:
        return ""
    return f"{folder} has {free_bytes / GIB:.1f} GiB free, {needed_bytes / GIB:.1f} are needed"


def _source_checks(facts: Facts) -> Iterator[Check]:
    missing = len(facts.binaries_missing)
    if not missing:
        yield Check(name="executables", state="good", found="all that a default run needs are here")
        return
    told = f"{missing} are not here: {', '.join(facts.binaries_missing)}"
    if facts.download_refusal is None or facts.build_refusal is None:
        yield Check(name="executables", state="warning", found=told, remedy="run `kilonode setup`")
    elif not facts.download_refusal:
        yield Check(
            name="executables",
            state="warning",
            found=f"{told}; they can be downloaded",
            remedy="run `kilonode setup`, or leave it to the first run",
        )
    elif not facts.build_refusal:
        yield Check(
            name="executables",
            state="warning",
            found=f"{told}; they can be built with Go, which takes 20 minutes or so on 2 CPUs",
            remedy="run `kilonode setup`, or leave it to the first run",
        )
    else:
        yield Check(
            name="executables",
            state="bad",
            found=f"{told}; no download: {facts.download_refusal}; no build: {facts.build_refusal}",
            remedy="give this machine internet access, or Go with access to a module proxy, or name files "
            "with KILONODE_KUBE_PROXY=/path and the like",
            blocks="measure",
        )


def _optional_checks(facts: Facts) -> Iterator[Check]:
    kind_missing = ", ".join(facts.kind_missing)
    engine = "" if facts.engine else facts.engine_refusal
    yield _judged(
        "docker",
        "; ".join(filter(None, (engine, f"not here yet: {kind_missing}" if kind_missing else ""))),
        f"{facts.engine} answers",
        "for --cluster kind: run `kilonode setup --kind`, then `kilonode docker` where no engine runs",
        blocks="kind",
    )
    yield _judged(
        "valgrind",
        "" if facts.profiler else "it is not on PATH",
        "here",
        "for kilonode stages: run `kilonode setup --profiler`",
        blocks="stages",
    )


def _neighbour_checks(facts: Facts) -> Iterator[Check]:
    if facts.dead:
        yield Check(
            name="leftovers",
            state="warning",
            found=f"of runs that were killed: {', '.join(facts.dead)}",
            remedy="run `kilonode clean`; the next run removes them too",
        )
    busy = facts.load > facts.cpus
    if facts.alive or busy:
        others = f"runs that live: {', '.join(facts.alive)}; " if facts.alive else ""
        yield Check(
            name="quiet",
            state="warning",
            found=f"{others}load {facts.load:.1f} on {facts.cpus} CPUs",
            remedy="wait until it is quiet: times depend on what else runs, memory does not",
        )
    else:
        yield Check(name="quiet", state="good", found=f"load {facts.load:.1f} on {facts.cpus} CPUs")
