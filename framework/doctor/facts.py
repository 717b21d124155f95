"""What is so on this machine, found out by trial where a look does not tell."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from framework import guard, ledger, network, preflight, private_docker
from framework.binaries import Binaries
from framework.cgroup import detect_mode, memory_cgroup
from framework.cgroup_counters import CgroupMode
from framework.cluster import HOST_PROGRAMS, kind
from framework.containers import find_engine
from framework.errors import KilonodeError
from framework.observe import KernelLog
from framework.observe.netlink import open_exit_socket, open_process_event_socket
from framework.process import CAP_SYS_RESOURCE, has_capability, run
from framework.spec import Spec
from framework.units import KIB

TRIAL_TIMEOUT_S: Final = 20.0
_NFT_TRIAL: Final = b"""\
add table ip kilonode-trial
add chain ip kilonode-trial nat { type nat hook prerouting priority -100 ; }
add chain ip kilonode-trial endpoint
add map ip kilonode-trial ports { type ipv4_addr . inet_proto . inet_service : verdict ; }
add element ip kilonode-trial ports { 192.0.2.1 . tcp . 80 : goto endpoint }
add rule ip kilonode-trial nat fib daddr type local return
add rule ip kilonode-trial nat ip daddr . meta l4proto . th dport vmap @ports
add rule ip kilonode-trial nat numgen random mod 2 vmap { 0 : goto endpoint, 1 : goto endpoint }
add rule ip kilonode-trial endpoint meta l4proto tcp dnat to 192.0.2.2:80
"""
"""One of each kind of statement that kube-proxy's rules are made of."""
_LINKS_TRIAL: Final = "ip link add kn0 type bridge && ip link add kn1 type veth peer name kn2"


class Facts(Spec, frozen=True, kw_only=True):
    """This machine at one moment.

    What ends in ``_refusal`` is why something can't be had; empty where it can. ``packages_missing`` are
    Debian's, of a run; ``kind_missing`` those of `--cluster kind`. ``binaries_missing`` are executables that
    a run would have to get first; ``download_refusal`` and ``build_refusal`` are None where nothing is
    missing, or nobody was asked. ``alive`` and ``dead`` are runs, by their names.
    """

    is_root: bool
    may_lower_oom_scores: bool
    kernel: str
    machine: str
    cpus: int
    load: float
    packages_missing: tuple[str, ...]
    nft: str
    nft_refusal: str
    links_refusal: str
    iptables_refusal: str
    cgroup_mode: Literal["v1", "v2"] | None
    cgroup_refusal: str
    exits_refusal: str
    kernel_log_refusal: str
    memory_available_bytes: int
    swap_bytes: int
    state_folder: str
    state_refusal: str
    state_free_bytes: int
    cache_folder: str
    cache_free_bytes: int
    runs_folder: str
    runs_free_bytes: int
    addresses_refusal: str
    binaries_missing: tuple[str, ...]
    download_refusal: str | None
    build_refusal: str | None
    engine: str
    engine_refusal: str
    kind_missing: tuple[str, ...]
    profiler: bool
    alive: tuple[str, ...]
    dead: tuple[str, ...]


def look(runs: Path, *, network_too: bool = True) -> Facts:
    """This machine now, ``runs`` being where run folders would go.

    Without ``network_too`` nobody outside is asked, and no engine.
    """
    binaries = Binaries()
    missing = _missing(binaries)
    refusals = binaries.refusals(binaries.request("kube-proxy")) if missing and network_too else (None, None)
    state, state_refusal = _state_folder()
    engine, engine_refusal = _engine() if network_too else ("", "nobody asked")
    found = ledger.all_runs(state / "runs")
    return Facts(
        is_root=os.geteuid() == 0,
        may_lower_oom_scores=has_capability(CAP_SYS_RESOURCE),
        kernel=platform.release(),
        machine=platform.machine(),
        cpus=os.cpu_count() or 1,
        load=os.getloadavg()[0],
        packages_missing=preflight.missing_packages(),
        nft=_nft(binaries),
        nft_refusal=_refusal_of_trial(["nft", "-f", "-"], _NFT_TRIAL),
        links_refusal=_refusal_of_trial(["sh", "-c", _LINKS_TRIAL]),
        iptables_refusal=_refusal(preflight.require_iptables),
        cgroup_mode=_cgroup_mode(),
        cgroup_refusal=_refusal(_require_cgroup),
        exits_refusal=_refusal(_require_exit_records),
        kernel_log_refusal=_refusal(lambda: KernelLog(0.0).close()),
        memory_available_bytes=guard.memory_available_bytes(),
        swap_bytes=_swap_bytes(Path("/proc/meminfo").read_text()),
        state_folder=str(state),
        state_refusal=state_refusal,
        state_free_bytes=_free_bytes(state),
        cache_folder=str(binaries.root),
        cache_free_bytes=_free_bytes(binaries.root),
        runs_folder=str(runs),
        runs_free_bytes=_free_bytes(runs.absolute()),
        addresses_refusal=_refusal(network.free_subnet),
        binaries_missing=missing,
        download_refusal=refusals[0],
        build_refusal=refusals[1],
        engine=engine,
        engine_refusal=engine_refusal,
        kind_missing=_kind_missing(binaries),
        profiler=shutil.which(preflight.PROFILER) is not None,
        alive=tuple(each.run_id for each in found if each.state == "alive"),
        dead=tuple(each.run_id for each in found if each.state == "dead"),
    )


def _refusal(ask: Callable[[], object]) -> str:
    """In one line, why ``ask`` refused; empty where it did not."""
    try:
        ask()
    except KilonodeError as error:
        return _one_line(error.what)
    return ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _refusal_of_trial(argv: list[str], stdin: bytes = b"") -> str:
    """Why ``argv`` does not work in a network namespace of its own, which ends with it."""

    def attempt() -> None:
        tried = run(["unshare", "--net", *argv], stdin=stdin, check=False, timeout_s=TRIAL_TIMEOUT_S)
        if tried.exit_code != 0:
            said = (tried.stderr or tried.stdout).decode(errors="replace").strip()
            raise KilonodeError(said.partition("\n")[0] or "it fails", remedy="")

    return _refusal(attempt)


def _nft(binaries: Binaries) -> str:
    try:
        return binaries.system("nft").version
    except KilonodeError:
        return ""


def _cgroup_mode() -> CgroupMode | None:
    try:
        return detect_mode()
    except KilonodeError:
        return None


def _require_cgroup() -> None:
    """A memory cgroup can be made and removed."""
    trial = memory_cgroup(f"kilonode-trial-{os.getpid()}")
    try:
        trial.create()
        trial.remove()
    except OSError as error:
        raise KilonodeError(f"no memory cgroup can be made: {error}", remedy="") from error


def _require_exit_records() -> None:
    open_exit_socket().close()
    open_process_event_socket().close()


def _swap_bytes(meminfo: str) -> int:
    """SwapTotal of /proc/meminfo (proc(5)); 0 where the kernel has no swap."""
    sizes = [line.split()[1] for line in meminfo.splitlines() if line.startswith("SwapTotal:")]
    return int(sizes[0]) * KIB if sizes else 0


def _state_folder() -> tuple[Path, str]:
    try:
        return ledger.state_root(), ""
    except KilonodeError as error:
        return Path(os.environ[ledger.STATE_ENV]), error.what


def _free_bytes(folder: Path) -> int:
    """On the disk where ``folder`` is, or would be made."""
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    return shutil.disk_usage(there).free


def _missing(binaries: Binaries) -> tuple[str, ...]:
    wanted = binaries.defaults()
    return tuple(str(request) for request in wanted if binaries.find(request.name, request.version) is None)


def _engine() -> tuple[str, str]:
    try:
        engine = find_engine(ledger.private_socket())
        return f"{engine.program} {engine.version()}", ""
    except KilonodeError as error:
        return "", _one_line(error.what)


def _kind_missing(binaries: Binaries) -> tuple[str, ...]:
    packages = [name for group in private_docker.missing_packages() for name in group]
    programs = [name for name in HOST_PROGRAMS if binaries.find(name) is None]
    return (*kind.missing_packages(), *packages, *programs)
