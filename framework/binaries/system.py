"""Programs of the distribution: found on PATH, named by their package's exact version.

nft's memory is what this project measures, and Debian's 1.0.6-2+deb12u2 is another program than upstream's
1.0.6, so the package version is the version.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

from framework.binaries.errors import ExplicitPathError
from framework.binaries.identity import sha256_of, toolchain_of, version_output
from framework.binaries.model import Binary, BinarySource
from framework.errors import MissingRequirementError
from framework.process import run

SYSTEM_FOLDERS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Searched after PATH: Debian leaves them out of a user's PATH."""
_VERSION: Final = re.compile(r"\bv?(\d+\.\d+[\w.+~-]*)")


def locate(name: str, explicit: Path | None) -> Binary:
    """The program ``name``, or the one at ``explicit``.

    Raises MissingRequirementError when there is none, ExplicitPathError when it reports no version.
    """
    path = explicit or _on_path(name)
    source: BinarySource = "system package" if explicit is None else "explicit path"
    version = package_version(path) or _own_version(path)
    return Binary(name, version, path, source, toolchain_of(path), sha256_of(path))


def _on_path(name: str) -> Path:
    searched = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS))
    found = shutil.which(name, path=searched)
    if found is None:
        raise MissingRequirementError(
            f"there is no program {name!r}", where="PATH", remedy=f"install the package that has {name}"
        )
    return Path(found)


def package_version(path: Path) -> str | None:
    """Version of the Debian package that owns ``path``; None where there is none, or no dpkg.

    dpkg knows a file by the path that its package ships, which on a merged /usr may lack the ``/usr``.
    """
    if shutil.which("dpkg-query") is None:
        return None
    shipped = path.resolve()
    for candidate in dict.fromkeys((path, shipped, Path("/", *shipped.parts[2:]))):
        owner = run(["dpkg-query", "--search", candidate], check=False)
        if owner.exit_code == 0:
            package = owner.text.splitlines()[0].rpartition(": ")[0]
            return run(["dpkg-query", "--show", "--showformat=${Version}", package]).text.strip() or None
    return None


def _own_version(path: Path) -> str:
    match = _VERSION.search(version_output(path))
    if match is None:
        raise ExplicitPathError(
            f"{path} belongs to no Debian package and reports no version",
            where=str(path),
            remedy="install it from a package",
        )
    return match.group(1)
