"""The cache of executables, shared by every run and process of a user.

``ROOT/binaries/NAME/VERSION/PLATFORM/SOURCE/NAME`` lies beside ``NAME.json``, its metadata. SOURCE is
``download`` or ``go-build-TOOLCHAIN``, since an official binary and a rebuilt one differ in their garbage
collector and so in their memory. A download is preferred to a build.

A file is staged on the same file system, synced and renamed, and its metadata is written after it: what has
metadata is whole. Reading takes no lock; whoever installs or discards holds the lock of the binary. The
digest is not taken again while size, mtime and inode are those that were verified, so a warm start costs a
few ``stat`` calls.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import filelock
import msgspec
import platformdirs

from framework.binaries.errors import DiskFullError
from framework.binaries.identity import sha256_of, toolchain_of
from framework.binaries.model import Binary, BinarySource, Request
from framework.errors import BadInputError
from framework.log import get_logger
from framework.outcome import Record
from framework.units import GIB, mib
from framework.versioned_file import now_utc
from framework.wait import wait_until

CACHE_VARIABLE: Final = "KILONODE_CACHE_DIR"
LOCK_TIMEOUT_S: Final = 2 * 3600.0
"""Longer than any one build, which has its own limit."""
LOCK_INTERVAL_S: Final = 0.2
METADATA_FORMAT: Final = 1
DISK_FULL_ERRNOS: Final = (errno.ENOSPC, errno.EDQUOT)

log = get_logger(__name__)


class Fingerprint(Record, frozen=True, kw_only=True):
    """What tells cheaply that a file is the one whose digest was taken."""

    size_bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        status = path.stat()
        return cls(size_bytes=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino)


class Metadata(Record, frozen=True, kw_only=True):
    """What is written beside a cached executable. ``made_utc`` is when it was built or downloaded."""

    format: int
    name: str
    version: str
    platform: str
    source: BinarySource
    toolchain: str
    sha256: str
    size_bytes: int
    made_utc: str
    url: str
    verified: Fingerprint


@dataclass(frozen=True)
class Entry:
    """One cached executable, not yet verified."""

    path: Path
    metadata: Metadata

    @property
    def binary(self) -> Binary:
        recorded = self.metadata
        return Binary(
            recorded.name,
            recorded.version,
            self.path,
            recorded.source,
            recorded.toolchain,
            recorded.sha256,
        )


def default_root() -> Path:
    """``KILONODE_CACHE_DIR``, or kilonode's folder in the user's cache folder.

    Raises BadInputError where a file is in its place.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    root = Path(chosen).absolute() if chosen else platformdirs.user_cache_path("kilonode")
    there = next(place for place in (root, *root.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise BadInputError(
            f"{there} is no folder, so nothing can be cached in {root}",
            where=CACHE_VARIABLE,
            remedy=f"set {CACHE_VARIABLE} to a folder",
        )
    return root


@dataclass(frozen=True)
class Store:
    """``platform`` is such as ``linux-amd64``."""

    root: Path
    platform: str

    def find(self, request: Request) -> Binary | None:
        """The cached binary if there is one whose digest is right; removes nothing."""
        for entry in self._entries(request.name, request.version):
            if _verify(entry):
                return entry.binary
        return None

    def discard_damaged(self, request: Request) -> None:
        """Remove cached binaries whose digest is wrong. The caller holds the lock of ``request``."""
        for entry in self._entries(request.name, request.version):
            if not _verify(entry):
                log.warning("%s is not the file that was cached; removed", entry.path)
                _metadata_path(entry.path).unlink(missing_ok=True)
                entry.path.unlink(missing_ok=True)

    def installed(self) -> tuple[Binary, ...]:
        """Everything in the cache, by name and version; digests are as recorded, not taken again."""
        return tuple(entry.binary for entry in self._entries("*", "*"))

    def install(
        self, staged: Path, request: Request, *, source: BinarySource, sha256: str, url: str
    ) -> Binary:
        """Move ``staged``, which is on this store's file system, into place and give it as a Binary.

        ``sha256`` was verified by the caller, who holds the lock of ``request``.
        """
        toolchain = toolchain_of(staged)
        folder = f"{source}-{toolchain}" if source == "go-build" else source
        path = self.root / "binaries" / request.name / request.version / self.platform / folder / request.name
        with disk_full_as_error(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            _metadata_path(path).unlink(missing_ok=True)
            _publish(staged, path)
            fingerprint = Fingerprint.of(path)
            entry = Entry(
                path,
                Metadata(
                    format=METADATA_FORMAT,
                    name=request.name,
                    version=request.version,
                    platform=self.platform,
                    source=source,
                    toolchain=toolchain,
                    sha256=sha256,
                    size_bytes=fingerprint.size_bytes,
                    made_utc=now_utc(),
                    url=url,
                    verified=fingerprint,
                ),
            )
            _write_metadata(entry)
        return entry.binary

    def staging(self, request: Request) -> Path:
        """A folder for what is not finished. It outlives a failure, so that a download resumes."""
        path = self.root / "staging" / f"{request.name}-{request.version}-{self.platform}"
        return self._made(path)

    def build_dir(self, module: str, version: str) -> Path:
        """The folder of the small module that builds commands of ``module``, with its logs."""
        path = self.root / "build" / f"{module.replace('/', '_')}@{version}"
        return self._made(path)

    @contextmanager
    def locked(self, name: str, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold the lock ``name`` among all processes and threads; ``on_wait`` is called while it is taken.

        An exception of ``on_wait`` ends the wait. Raises TimeLimitError after two hours.
        """
        path = self._made(self.root / "locks") / f"{name}.lock"
        lock = filelock.FileLock(path, thread_local=False)

        def acquired() -> bool | None:
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                on_wait()
                return None
            return True

        wait_until(
            acquired,
            what=f"getting the lock {path}",
            timeout_s=LOCK_TIMEOUT_S,
            interval_s=LOCK_INTERVAL_S,
            describe=lambda: "another process held it",
            remedy="see what holds it (fuser) and end that process",
        )
        try:
            yield
        finally:
            lock.release()

    def _made(self, folder: Path) -> Path:
        """``folder``, which is there now. Raises BadInputError where this process may not make it."""
        try:
            with disk_full_as_error(self.root):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(
                f"nothing can be cached in {folder}: {error.strerror}",
                where=CACHE_VARIABLE,
                remedy=f"set {CACHE_VARIABLE} to a folder that you may write",
            ) from error
        return folder

    def _entries(self, name: str, version: str) -> list[Entry]:
        pattern = f"{name}/{version}/{self.platform}/*/*.json"
        read = [_read(path) for path in (self.root / "binaries").glob(pattern)]
        entries = [entry for entry in read if entry is not None]
        entries.sort(key=lambda entry: entry.metadata.made_utc, reverse=True)
        entries.sort(key=lambda entry: (entry.metadata.name, entry.metadata.version, entry.metadata.source))
        return entries


def _read(path: Path) -> Entry | None:
    executable = path.with_suffix("")
    try:
        metadata = msgspec.json.decode(path.read_bytes(), type=Metadata)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.warning("%s can't be read (%s); taken as absent", path, error)
        return None
    return Entry(executable, metadata) if metadata.format == METADATA_FORMAT and executable.exists() else None


def _verify(entry: Entry) -> bool:
    try:
        fingerprint = Fingerprint.of(entry.path)
        if fingerprint == entry.metadata.verified:
            return True
        if sha256_of(entry.path) != entry.metadata.sha256:
            return False
    except FileNotFoundError:
        return False
    _write_metadata(Entry(entry.path, msgspec.structs.replace(entry.metadata, verified=fingerprint)))
    return True


def _metadata_path(executable: Path) -> Path:
    return executable.with_name(f"{executable.name}.json")


def _write_metadata(entry: Entry) -> None:
    path = _metadata_path(entry.path)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_bytes(msgspec.json.format(msgspec.json.encode(entry.metadata), indent=2) + b"\n")
    _publish(staged, path, mode=0o644)


def _publish(staged: Path, path: Path, *, mode: int = 0o755) -> None:
    staged.chmod(mode)
    _sync(staged)
    staged.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_free_space(path: Path, needed_bytes: int) -> None:
    """Raises DiskFullError when the file system of ``path`` has less than ``needed_bytes`` free."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise DiskFullError(
            f"{mib(free_bytes)} MiB are free, {mib(needed_bytes)} MiB are needed",
            where=str(path),
            remedy=f"free {needed_bytes / GIB:.1f} GiB there, or set {CACHE_VARIABLE} to another disk",
        )


@contextmanager
def disk_full_as_error(path: Path) -> Iterator[None]:
    """Turn "no space left" (and "quota exceeded") into a DiskFullError."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise DiskFullError(
            "no space is left on the disk",
            where=str(error.filename or path),
            remedy=f"free some space, or set {CACHE_VARIABLE} to another disk",
        ) from error
