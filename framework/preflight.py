"""The Debian packages that this machine must have before anything is created, and how it gets them.

``install_packages`` is for ``kilonode setup``, which a user starts knowingly. Package lists are refreshed
only when an installation fails without that: it is the slow part, and a machine that was set up before needs
no network at all. What else a machine must be able to do is in ``framework.doctor``.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from framework.errors import MissingRequirementError
from framework.process import Completed, run

PACKAGES: Final = {
    "nft": "nftables",
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "xtables-nft-multi": "iptables",
}
"""Debian package by program."""
PROTOCOLS: Final = "netbase"
"""Package of /etc/protocols. Without it nft lists protocols as numbers, and a kube-proxy from 1.36 on that
starts on rules of before takes ``10.96.0.1 . 6 . 443`` for another's and deletes what it just ensured: no
ClusterIP is served (nftElementStorage in pkg/proxy/nftables/proxier.go; seen with 1.37.2 and nft 1.0.6)."""
PROFILER: Final = "valgrind"
"""Program and package that ``kilonode stages`` needs and nothing else, so nobody is given it unasked."""
BROWSER: Final = {"chromium": "chromium", "chromedriver": "chromium-driver"}
"""Debian package by program of what opens reports where kilonode itself is tested. A font comes with it."""
_IPTABLES_PROBE: Final = b"""\
*nat
:KUBE-PROBE - [0:0]
-A KUBE-PROBE -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-PROBE -j MARK --xor-mark 0x4000
-A KUBE-PROBE -m comment --comment "probe" -j MASQUERADE --random-fully
-A KUBE-PROBE -m addrtype --dst-type LOCAL -j RETURN
-A KUBE-PROBE -m statistic --mode random --probability 0.5 -j RETURN
-A KUBE-PROBE -m recent --name KUBE-PROBE --rcheck --seconds 10800 --reap -j RETURN
-A KUBE-PROBE -p tcp -m tcp -j DNAT --to-destination 192.0.2.1:80
COMMIT
*filter
:KUBE-PROBE - [0:0]
-A KUBE-PROBE -m conntrack --ctstate INVALID -j DROP
-A KUBE-PROBE -j REJECT
COMMIT
"""
"""One rule for each extension that kube-proxy's rules use."""
APT_TIMEOUT_S: Final = 900.0
APT_LOCK_TIMEOUT_S: Final = 120
"""How long apt-get waits for another package manager, such as unattended-upgrades."""


def require_programs() -> None:
    """Raises MissingRequirementError that names the programs that are not on PATH, and their packages."""
    missing = _missing(PACKAGES)
    if missing:
        raise MissingRequirementError(
            f"programs are missing: {', '.join(p for p, package in PACKAGES.items() if package in missing)}",
            where="PATH",
            remedy=f"apt-get install {' '.join(missing)}; what is installed must be on PATH, "
            "/usr/sbin included",
        )


def require_iptables() -> None:
    """Raises MissingRequirementError where kube-proxy's iptables mode can't work.

    That is on a kernel that lacks what the rules use: they are tried in a network namespace that ends with
    the trial.
    """
    tried = run(
        ["unshare", "--net", "xtables-nft-multi", "iptables-restore"], stdin=_IPTABLES_PROBE, check=False
    )
    if tried.exit_code != 0:
        refusal = tried.stderr.decode(errors="replace").strip()
        raise MissingRequirementError(
            f"this kernel refuses rules of kube-proxy's iptables mode: {refusal}",
            where="iptables-restore",
            remedy="load the modules nft_compat, xt_* and nf_nat, or leave proxy_mode at nftables",
        )


def missing_packages(*, profiler: bool = False, browser: bool = False) -> tuple[str, ...]:
    """The Debian packages whose program is not on PATH or whose file is absent.

    Those of the profiler and of the browser are among them if asked for.
    """
    asked = ({PROFILER: PROFILER} if profiler else {}) | (BROWSER if browser else {})
    programs = _missing(PACKAGES | asked)
    return programs if _names_protocols() else (*programs, PROTOCOLS)


def _missing(packages: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(package for program, package in packages.items() if shutil.which(program) is None)


def _names_protocols() -> bool:
    try:
        socket.getprotobyname("tcp")
    except OSError:
        return False
    return True


def can_install() -> bool:
    """Whether this process may install Debian packages."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install_packages(packages: Sequence[str]) -> None:
    """Install Debian packages, without recommended ones and without a question.

    Raises CommandError or TimeLimitError with apt-get's own words when that fails.
    """
    if _apt_get("install", "--no-install-recommends", *packages, check=False).exit_code != 0:
        _apt_get("update")
        _apt_get("install", "--no-install-recommends", *packages)


def _apt_get(command: str, *arguments: str, check: bool = True) -> Completed:
    return run(
        [
            "apt-get",
            "--yes",
            "--quiet",
            f"--option=DPkg::Lock::Timeout={APT_LOCK_TIMEOUT_S}",
            command,
            *arguments,
        ],
        env={"DEBIAN_FRONTEND": "noninteractive"},
        timeout_s=APT_TIMEOUT_S,
        check=check,
        remedy="see that the sources of apt are right and reachable (apt-get update)",
    )
