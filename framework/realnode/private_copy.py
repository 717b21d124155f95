"""Private copies of a node's executables, so that their text is charged to the node.

A page of a file is charged to the cgroup that reads it first. On a machine that runs many nodes the pages of
kubelet, containerd and nft are already there and a node would look cheaper than it is. So each node gets
files of its own (with the shared libraries that they need, found by ldd), flushed to disk and dropped from
the page cache: the node's first exec reads, and pays for, every page.

Writing 300 MB for each node would cost seconds and fill the disk's queue in the middle of a run. So copies
are kept for the session and handed on from a node that ended to the next, dropped from the page cache anew;
nodes that live at the same time never share one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from framework import process
from framework.spec import TextAccount

_READ_BYTES: Final = 1 << 20
_LIBRARY: Final = re.compile(r"=> (/\S+) \(0x")


class CopyPool:
    """Copies below ``folder``; each is used by one node at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free: dict[Path, list[Path]] = {}
        self._made = 0

    def take(self, source: Path) -> Path:
        """A copy of ``source`` of which no page is in the page cache."""
        free = self._free.setdefault(source, [])
        copy = free.pop() if free else self._copy(source)
        evict(copy)
        return copy

    def give_back(self, source: Path, copy: Path) -> None:
        """Let the next node have ``copy``; nobody runs it any more."""
        self._free.setdefault(source, []).append(copy)

    def _copy(self, source: Path) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._made += 1
        target = self._folder / f"{self._made:03d}-{source.name}"
        shutil.copyfile(source, target)
        target.chmod(0o755)
        return target


class Executables:
    """The executables and libraries of one node: links in ``folder``/bin and /lib.

    With text ``charged`` they lead to copies of a pool; with ``host`` to the originals, read into the page
    cache on the host's account before the node can touch them.
    """

    def __init__(self, pool: CopyPool, folder: Path, text: TextAccount) -> None:
        self.bin = folder / "bin"
        self.lib = folder / "lib"
        self.xtables = folder / "lib" / "xtables"
        self._pool = pool
        self._text = text
        self._taken: dict[Path, Path] = {}

    def take(self, executables: Sequence[tuple[str, Path]]) -> None:
        """Link ``(name, path)`` pairs and their shared libraries."""
        self.bin.mkdir(parents=True)
        self.lib.mkdir()
        libraries: set[Path] = set()
        for name, source in executables:
            self._link(source, self.bin / name)
            libraries |= shared_libraries(source)
        for library in sorted(libraries):
            self._link(library, self.lib / library.name)

    def take_iptables(self, program: Path, names: Sequence[str]) -> None:
        """Link iptables' one program under all its ``names``, and the extensions that it loads by name.

        They lie in the folder ``xtables`` beside the library that loads them.
        """
        for name in names:
            self._link(program, self.bin / name)
        (library,) = (path for path in shared_libraries(program) if path.name.startswith("libxtables."))
        self.xtables.mkdir()
        for extension in sorted((library.parent / "xtables").glob("*.so")):
            self._link(extension, self.xtables / extension.name)

    def give_back(self) -> None:
        """Return every copy to the pool."""
        while self._taken:
            self._pool.give_back(*self._taken.popitem())

    def _link(self, source: Path, link: Path) -> None:
        if self._text == "host":
            _read_through(source)
            link.symlink_to(source.resolve())
            return
        if source not in self._taken:
            self._taken[source] = self._pool.take(source)
        link.symlink_to(self._taken[source])


def shared_libraries(executable: Path) -> frozenset[Path]:
    """The shared libraries that the loader would map, from ldd; empty for a static executable."""
    listing = process.run(["ldd", executable], check=False)
    return frozenset(Path(path) for path in _LIBRARY.findall(listing.text))


def _read_through(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(_READ_BYTES):
            pass


def evict(path: Path) -> None:
    """Flush a file to disk and drop its pages from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
