"""What this machine must have before anything is created."""

from __future__ import annotations

import os
import shutil
from typing import Final

from framework.cgroup import detect_mode
from framework.errors import MissingRequirementError

PACKAGES: Final = {
    "nft": "nftables",
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "nsenter": "util-linux",
}
"""Debian package by program."""


def require_machine() -> None:
    """Raises MissingRequirementError that names everything that is missing, with the remedy."""
    if os.geteuid() != 0:
        raise MissingRequirementError(
            "real nodes need root, for network namespaces, cgroups and exit accounting",
            remedy="run as root (sudo -E), or select the tests that need none with `pytest tests/unit`",
        )
    missing = missing_packages()
    if missing:
        raise MissingRequirementError(
            f"programs are missing: {', '.join(p for p, package in PACKAGES.items() if package in missing)}",
            remedy=f"apt-get install {' '.join(missing)}",
        )
    detect_mode()


def missing_packages() -> tuple[str, ...]:
    """The Debian packages whose program is not on PATH."""
    return tuple(package for program, package in PACKAGES.items() if shutil.which(program) is None)
