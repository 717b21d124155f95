"""Fleets on disk: registered once, restored in seconds.

A snapshot is etcd's data folder as it was when etcd had ended after a fleet was registered, and before any
controller or kwok saw it: nodes, leases without holders, and nothing else. Copying the folder of an etcd that
does not run is one of the two ways to save it that etcd documents.

    CACHE/snapshots/
      100000-3f2a9c1b04de/
        manifest.json     what shaped it, every file with its digest, when it was made
        etcd/
      100000-3f2a9c1b04de.draft/   being registered, or left by a registration that was interrupted
      100000-3f2a9c1b04de.lock     held by whoever writes one of the two

Its name is a digest of everything that shaped it (the key), so another version of etcd or kube-apiserver, or
another body of a fake node, has a snapshot of its own. etcd registers straight into the draft: an interrupted
registration, a killed one too, is found there by the next run, which goes on from what it holds.

Files are compared with their digests while they are copied back. What is damaged, or was made by something
else than its name says, is refused with the reason, removed and made again. Together snapshots stay below a
size limit; what was used longest ago goes first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import filelock
import msgspec

from framework.errors import KilonodeError, TimeLimitError
from framework.log import get_logger
from framework.outcome import Record
from framework.units import GIB, mib, parse_bytes
from framework.versioned_file import now_utc

FORMAT: Final = 1
"""Version of a snapshot's files; another one is refused."""
LIMIT_VARIABLE: Final = "KILONODE_SNAPSHOTS_MAX"
LIMIT_BYTES_DEFAULT: Final = 4 * GIB
LOCK_TIMEOUT_S: Final = 1800.0
"""Longer than registering 100,000 nodes takes on 2 CPUs."""
MANIFEST: Final = "manifest.json"
ETCD: Final = "etcd"
_COPY_BYTES: Final = 4 << 20
_COPY_THREADS: Final = 2

log = get_logger(__name__)


class SnapshotRefusedError(KilonodeError):
    """A snapshot can't be used; says why."""


class SnapshotKey(Record, frozen=True, kw_only=True):
    """Everything that shapes a snapshot: ``etcd`` and ``kube_apiserver`` are versions with the digests of
    the executables, ``shape`` is a digest of what a fake node and its lease look like."""

    nodes: int
    etcd: str
    kube_apiserver: str
    shape: str

    @property
    def name(self) -> str:
        return f"{self.nodes}-{hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]}"


class SnapshotFile(Record, frozen=True, kw_only=True):
    size_bytes: int
    sha256: str


class Manifest(Record, frozen=True, kw_only=True):
    """``files`` are by path below the snapshot's etcd folder."""

    format: int
    key: SnapshotKey
    made_utc: str
    registered_s: float
    files: dict[str, SnapshotFile]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())


@dataclass(frozen=True)
class Snapshot:
    """One that is whole, as far as its manifest says."""

    folder: Path
    manifest: Manifest

    @property
    def used_utc(self) -> datetime:
        """When it was restored last, or made."""
        return datetime.fromtimestamp((self.folder / MANIFEST).stat().st_mtime, UTC)

    def restore(self, target: Path) -> None:
        """Copy etcd's data to ``target``, which must not exist.

        Raises SnapshotRefusedError, with nothing left in ``target``, when a file is missing or damaged.
        """
        target.mkdir(mode=0o700)
        try:
            with ThreadPoolExecutor(_COPY_THREADS) as threads:
                copies = [
                    threads.submit(self._copy, name, wanted, target)
                    for name, wanted in self.manifest.files.items()
                ]
                for copy in copies:
                    copy.result()
        except BaseException:
            shutil.rmtree(target)
            raise
        os.utime(self.folder / MANIFEST)

    def _copy(self, name: str, wanted: SnapshotFile, target: Path) -> None:
        copy = target / name
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            found = _digest(self.folder / ETCD / name, copy)
        except FileNotFoundError:
            found = None
        if found != wanted:
            raise SnapshotRefusedError(
                f"its file {name} is {'missing' if found is None else 'damaged'}",
                where=str(self.folder),
                remedy="nothing to do, it is made again",
            )


@dataclass(frozen=True)
class Draft:
    """A snapshot being made: etcd writes into ``data``."""

    folder: Path
    key: SnapshotKey

    @property
    def data(self) -> Path:
        return self.folder / ETCD


@dataclass(frozen=True)
class Snapshots:
    """All snapshots below ``root``, which together stay below ``limit_bytes``."""

    root: Path
    limit_bytes: int

    @classmethod
    def below(cls, cache: Path) -> Snapshots:
        """Those of a cache folder. Raises BadInputError for a limit in the environment that is no size."""
        given = os.environ.get(LIMIT_VARIABLE)
        limit = parse_bytes(given, where=LIMIT_VARIABLE) if given else LIMIT_BYTES_DEFAULT
        return cls(cache / "snapshots", limit)

    def find(self, key: SnapshotKey) -> Snapshot | None:
        """The snapshot for ``key``; one that can't be used is removed, and the log says why."""
        folder = self.root / key.name
        if not folder.is_dir():
            self._say_what_differs(key)
            return None
        try:
            snapshot = _read(folder)
            if snapshot.manifest.key != key:
                raise SnapshotRefusedError(
                    f"it was made for something else: {_difference(snapshot.manifest.key, key)}",
                    where=str(folder),
                    remedy="nothing to do, it is made again",
                )
        except SnapshotRefusedError as refusal:
            self.refuse(folder, refusal)
            return None
        return snapshot

    def refuse(self, folder: Path, reason: KilonodeError) -> None:
        """Say why a snapshot is not used, and remove it."""
        log.warning("snapshot %s refused: %s; it is made again", folder.name, reason.what)
        shutil.rmtree(folder)

    @contextmanager
    def draft(self, key: SnapshotKey) -> Iterator[Draft]:
        """The one place where this snapshot is made; another run that makes it is waited for.

        Raises TimeLimitError after half an hour of waiting. What is left in it stays for the next run.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = filelock.FileLock(self.root / f"{key.name}.lock", timeout=LOCK_TIMEOUT_S)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise TimeLimitError(
                f"another run is still making the snapshot after {LOCK_TIMEOUT_S:g} s",
                where=str(lock.lock_file),
                remedy="end that run",
            ) from None
        try:
            folder = self.root / f"{key.name}.draft"
            (folder / ETCD).mkdir(parents=True, exist_ok=True, mode=0o700)
            yield Draft(folder, key)
        finally:
            lock.release()

    def save(self, draft: Draft, *, registered_s: float) -> Snapshot:
        """Make a snapshot of a draft whose etcd has ended, and keep within the size limit."""
        data = draft.data
        paths = sorted(path for path in data.rglob("*") if path.is_file())
        with ThreadPoolExecutor(_COPY_THREADS) as threads:
            digests = list(threads.map(_digest, paths))
        manifest = Manifest(
            format=FORMAT,
            key=draft.key,
            made_utc=now_utc(),
            registered_s=round(registered_s, 1),
            files={str(path.relative_to(data)): found for path, found in zip(paths, digests, strict=True)},
        )
        (draft.folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        folder = self.root / draft.key.name
        shutil.rmtree(folder, ignore_errors=True)
        draft.folder.rename(folder)
        self._prune(keep=draft.key.name)
        return Snapshot(folder, manifest)

    def all(self) -> tuple[Snapshot, ...]:
        """Every readable one, used last first."""
        found = []
        for folder in sorted(self.root.glob("*-*")) if self.root.is_dir() else ():
            if (folder / MANIFEST).is_file():
                try:
                    found.append(_read(folder))
                except SnapshotRefusedError as refusal:
                    log.warning("%s", refusal)
        return tuple(sorted(found, key=lambda snapshot: snapshot.used_utc, reverse=True))

    def clear(self) -> int:
        """Remove everything, drafts too, except what a run is making; gives bytes."""
        freed = 0
        for folder in sorted(path for path in self.root.glob("*-*") if path.is_dir()):
            lock = filelock.FileLock(self.root / f"{folder.name.removesuffix('.draft')}.lock", timeout=0)
            try:
                with lock:
                    freed += _size_bytes(folder)
                    shutil.rmtree(folder)
            except filelock.Timeout:
                log.warning("%s is being made by a run and stays", folder.name)
        return freed

    def _prune(self, keep: str) -> None:
        total = 0
        for snapshot in self.all():
            total += snapshot.manifest.size_bytes
            if total > self.limit_bytes and snapshot.folder.name != keep:
                log.warning(
                    "snapshot %s removed: together they exceed %s MiB ($%s)",
                    snapshot.folder.name,
                    mib(self.limit_bytes),
                    LIMIT_VARIABLE,
                )
                shutil.rmtree(snapshot.folder)

    def _say_what_differs(self, key: SnapshotKey) -> None:
        for snapshot in self.all():
            if snapshot.manifest.key.nodes == key.nodes:
                difference = _difference(snapshot.manifest.key, key)
                log.info("snapshot %s does not fit: %s", snapshot.folder.name, difference)


def _read(folder: Path) -> Snapshot:
    try:
        text = (folder / MANIFEST).read_bytes()
        found = msgspec.json.decode(text, type=_Stamp).format
        if found != FORMAT:
            raise SnapshotRefusedError(
                f"it has format {found}, this version reads format {FORMAT}",
                where=str(folder),
                remedy="run `kilonode snapshots --clear`",
            )
        return Snapshot(folder, msgspec.json.decode(text, type=Manifest))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SnapshotRefusedError(
            f"its manifest can't be read: {error}",
            where=str(folder),
            remedy="run `kilonode snapshots --clear`",
        ) from error


class _Stamp(msgspec.Struct):
    format: int


def _difference(found: SnapshotKey, wanted: SnapshotKey) -> str:
    pairs = zip(msgspec.structs.astuple(found), msgspec.structs.astuple(wanted), strict=True)
    names = SnapshotKey.__struct_fields__
    return ", ".join(
        f"{name} is {there}, needed is {here}"
        for name, (there, here) in zip(names, pairs, strict=True)
        if there != here
    )


def _digest(path: Path, copy: Path | None = None) -> SnapshotFile:
    """Size and digest of a file, which is copied to ``copy`` on the way."""
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_COPY_BYTES))
    with path.open("rb", buffering=0) as source, (copy or Path(os.devnull)).open("wb", buffering=0) as target:
        while count := source.readinto(buffer):
            digest.update(buffer[:count])
            target.write(buffer[:count])
            size += count
    return SnapshotFile(size_bytes=size, sha256=digest.hexdigest())


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
