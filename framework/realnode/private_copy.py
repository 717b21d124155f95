"""Private copies of a node's executables, so that their text is charged to the node.

A page of a file is charged to the cgroup that reads it first. On a machine that runs many nodes the pages of
kubelet, containerd and nft are already there and a node would look cheaper than it is. So each node gets its
own files (with the shared libraries that they need, found by ldd), written to disk and dropped from the page
cache: the node's first exec reads, and pays for, every page.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from framework import process

_LIBRARY: Final = re.compile(r"=> (/\S+) \(0x")


def copy_privately(executables: Sequence[tuple[str, Path]], folder: Path) -> None:
    """Copy ``(name, path)`` pairs to ``folder``/bin and their shared libraries to ``folder``/lib."""
    (folder / "bin").mkdir(parents=True)
    (folder / "lib").mkdir()
    libraries: set[Path] = set()
    for name, source in executables:
        copy_evicted(source, folder / "bin" / name)
        libraries |= shared_libraries(source)
    for library in sorted(libraries):
        copy_evicted(library, folder / "lib" / library.name)


def shared_libraries(executable: Path) -> frozenset[Path]:
    """The shared libraries that the loader would map, from ldd; empty for a static executable."""
    listing = process.run(["ldd", executable], check=False)
    return frozenset(Path(path) for path in _LIBRARY.findall(listing.text))


def copy_evicted(source: Path, target: Path) -> None:
    """Copy a file, flush it to disk and drop its pages from the page cache."""
    shutil.copyfile(source, target)
    target.chmod(0o755)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
