"""A measurement as one archive that a maintainer can read, check and run again.

    README.md            what it is, and the exact commands
    ISSUE.md             the text of an issue, ready to paste
    manifest.json        format, what was found, and every file with its size and digest
    scenario.json        what was asked, resolved
    result.json, evidence.json, report.html, report.md
    versions.txt         every program with source, toolchain and digest
    nft-runs.txt         each nft that ran, with argv, exit and peak
    logs/                the node's daemons' logs and configuration, the kernel log
    control-plane/       the ends of its components' logs
    reproducer/          what kube-proxy hands to nft, from a twin node, and a script that loads it alone

Only files that kilonode wrote or knows come in, and every text is redacted. The reproducer's are left as they
are: they are what a kube-proxy made of Services with names of kilonode's own.

A bundle that is unpacked is a stranger's. It may land nowhere but in its folder, may take no more memory and
disk than a real one, holds no transaction that has nft read other files, and no text that steers a terminal.
"""

from __future__ import annotations

import gzip
import re
import secrets
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import file_digest
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import msgspec

from framework.analysis import (
    describe_measure,
    describe_outcome,
    measurement_label,
    outcome_rows,
    render_rows,
)
from framework.bundle.redact import Redactor
from framework.claims import load_claims
from framework.errors import BadInputError, MissingRequirementError
from framework.outcome import LOADER_COMMS, Measure, Record, RunResult
from framework.page import markdown_table, report, write_report
from framework.report import Session, load_measurement
from framework.templates import fill_in
from framework.units import GIB, KIB, MIB, mib
from framework.versioned_file import load_versioned, now_utc, require_file, write_versioned

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
REPRODUCER: Final = "reproducer"
LOAD: Final = "load.nft"
EARLIER: Final = "earlier"
TABLES: Final = "kubelets-tables.nft"
LISTING: Final = "ruleset.txt"
SCRIPT: Final = "reproduce.sh"
UNPACKED_BYTES_MAX: Final = 8 * GIB
"""Transactions of 100,000 endpoints are 50 MB each, and there may be a dozen before the last."""
FILE_BYTES_MAX: Final = 1 * GIB
"""A transaction is read into memory whole."""
JSON_BYTES_MAX: Final = 64 * MIB
"""Evidence of 100,000 endpoints is 2.5 MB; read, a text may take twenty times its size."""
FILES_MAX: Final = 10_000
DEPTH_MAX: Final = 8
"""Of folders; a bundle has three."""
HEADER_BYTES_MAX: Final = 16 * KIB
"""What tar has to say of one file: twice the longest path and some figures."""
_LOG_SUFFIXES: Final = (".log", ".yaml", ".toml")
_GZIP_LEVEL: Final = 6
_PACKAGE: Final = "framework.bundle"
_ASK_AGAIN: Final = "ask for the bundle again"
_TAR_ERRORS: Final = (EOFError, ValueError, OverflowError, OSError, tarfile.TarError, zlib.error)
_INCLUDE: Final = re.compile(rb"(?:^|[;{}])\s*include\b", re.MULTILINE)
_CONTROL: Final = re.compile(
    rb"(?<!\\)(?:\\\\)*\\u00(?:0[0-8bcef]|1[0-9a-f]|7f|[89][0-9a-f])|\x7f|\xc2[\x80-\x9f]", re.IGNORECASE
)
"""A control character in JSON, escaped or not, but for tab and the ends of lines."""


@dataclass(frozen=True, kw_only=True)
class Twin:
    """What a twin node's kube-proxy handed to nft: the load, what came before it, what the kernel held then.

    ``nft_bytes_peak`` is that of the load on the twin; ``tables`` are those that kubelet makes.
    """

    load: Path
    earlier: Sequence[Path]
    listing: Path | None
    tables: bytes
    nft_bytes_peak: Measure | None
    attempts: int


class BundledFile(Record, frozen=True, kw_only=True):
    """One file of a bundle."""

    path: str
    size_bytes: int
    sha256: str


class TwinFacts(Record, frozen=True, kw_only=True):
    """The twin, as far as it is compared. ``attempts`` is how often it was made to come close."""

    nft_bytes_peak: Measure | None
    earlier: int
    attempts: int


class Manifest(Record, frozen=True, kw_only=True):
    """What a bundle holds and what was found. ``twin`` is None in a bundle without a reproducer."""

    format: int
    kilonode: str
    made_utc: str
    run_id: str
    test_id: str
    repro: str
    nft_bytes_peak: Measure | None
    twin: TwinFacts | None
    files: tuple[BundledFile, ...]


def pack(
    measurement: Path, session: Session | None, twin: Twin | None, *, output: Path, redactor: Redactor
) -> Manifest:
    """Write the bundle of a measurement's folder to ``output``.

    Raises BadInputError where the folder holds no result, or ``output`` can't be written.
    """
    load_measurement(measurement)
    with tempfile.TemporaryDirectory(prefix="kilonode-bundle-") as place:
        folder = Path(place)
        result = _write_results(folder, measurement, session, redactor)
        _copy_logs(measurement.parent / "control-plane", folder / "control-plane", redactor)
        _copy_logs(measurement / "logs", folder / "logs", redactor)
        if twin is not None:
            _write_reproducer(folder / REPRODUCER, twin)
        manifest = _manifest(result, session, twin, redactor)
        _write_texts(folder, result, manifest, redactor)
        manifest = msgspec.structs.replace(manifest, files=tuple(_files(folder)))
        write_versioned(folder / MANIFEST, manifest)
        _write_archive(folder, output)
    return manifest


def _write_results(folder: Path, measurement: Path, session: Session | None, redactor: Redactor) -> RunResult:
    """Write what was found; gives it as it is written, redacted."""
    found = redactor.json((measurement / "result.json").read_bytes())
    (folder / "result.json").write_bytes(msgspec.json.format(found, indent=2))
    if (measurement / "evidence.json").is_file():
        evidence = redactor.json((measurement / "evidence.json").read_bytes())
        (folder / "evidence.json").write_bytes(evidence)
    result = load_measurement(folder)
    if result.asked is not None:
        asked = msgspec.json.format(msgspec.json.encode(result.asked), indent=2)
        (folder / "scenario.json").write_bytes(asked)
    shown = msgspec.structs.replace(session, command=redactor.text(session.command)) if session else None
    write_report(folder, [result], shown)
    environment = result.environment
    parts = (f"{p.name} {p.version} {p.source} {p.toolchain} {p.sha256}" for p in environment.components)
    (folder / "versions.txt").write_text("\n".join(parts) + "\n")
    if result.evidence is not None:
        lines = (
            f"{end.at_s:10.3f} s  peak {'>=' if end.bound == 'lower' else ''}"
            f"{mib(end.memory_bytes_peak):>7} MiB  "
            f"{'signal ' + str(end.signal) if end.signal else 'exit ' + str(end.exit_code)}  "
            f"{' '.join(end.argv) if end.argv else end.comm + ' (argv unknown)'}"
            for end in result.evidence.exits
            if end.comm in LOADER_COMMS[result.evidence.loader]
        )
        (folder / "nft-runs.txt").write_text("\n".join(lines) + "\n")
    return result


def _copy_logs(source: Path, place: Path, redactor: Redactor) -> None:
    for file in sorted(source.glob("*")):
        if file.is_file() and not file.is_symlink() and file.suffix in _LOG_SUFFIXES:
            place.mkdir(exist_ok=True)
            (place / file.name).write_text(redactor.text(file.read_text(errors="replace")))


def _write_reproducer(place: Path, twin: Twin) -> None:
    (place / EARLIER).mkdir(parents=True)
    (place / TABLES).write_bytes(twin.tables)
    for number, transaction in enumerate(twin.earlier, start=1):
        shutil.copyfile(transaction, place / EARLIER / f"{number:04d}.nft")
    shutil.copyfile(twin.load, place / LOAD)
    if twin.listing is not None:
        shutil.copyfile(twin.listing, place / LISTING)
    script = place / SCRIPT
    script.write_text(fill_in(_PACKAGE, "reproduce.sh.j2", {}))
    script.chmod(0o755)


def _manifest(result: RunResult, session: Session | None, twin: Twin | None, redactor: Redactor) -> Manifest:
    """Without the files, which are not all there yet."""
    outcome = result.outcome
    facts = None
    if twin is not None:
        facts = TwinFacts(
            nft_bytes_peak=twin.nft_bytes_peak, earlier=len(twin.earlier), attempts=twin.attempts
        )
    return Manifest(
        format=FORMAT,
        kilonode=version("kilonode"),
        made_utc=now_utc(),
        run_id=result.run_id,
        test_id=result.test_id,
        repro=redactor.text(result.repro or (session.command if session is not None else "")),
        nft_bytes_peak=outcome.nft_bytes_peak if outcome is not None else None,
        twin=facts,
        files=(),
    )


def _write_texts(folder: Path, result: RunResult, manifest: Manifest, redactor: Redactor) -> None:
    outcome = result.outcome
    versions = {part.name: part.version for part in result.environment.components}
    shown = report([result], None, load_claims())
    ended = describe_outcome(outcome) if outcome is not None else "nothing was measured"
    values: dict[str, Any] = {
        "result": result,
        "manifest": manifest,
        "nft_version": versions.get("nft", "?"),
        "loader": outcome.loader if outcome is not None else "nft",
        "peak": describe_measure,
        "twin_note": _twin_note(manifest),
        "headline": f"{measurement_label(result)}: {ended}",
        "facts": render_rows(tuple((f"{name}:", text) for name, text in outcome_rows(outcome)))
        if outcome
        else "",
        "machine": shown.machine,
        "tables": markdown_table(shown.versions),
    }
    for name in ("README.md", "ISSUE.md"):
        (folder / name).write_text(redactor.text(fill_in(_PACKAGE, f"{name}.j2", values)))


def _twin_note(manifest: Manifest) -> str:
    """How far the twin's peak is from the measured one, where both are known."""
    measured, twin = manifest.nft_bytes_peak, manifest.twin.nft_bytes_peak if manifest.twin else None
    if measured is None or twin is None or "lower" in (measured.bound, twin.bound):
        return ""
    return f", {twin.value / measured.value - 1:+.1%}"


def _files(folder: Path) -> Iterator[BundledFile]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            with path.open("rb") as file:
                digest = file_digest(file, "sha256").hexdigest()
            relative = path.relative_to(folder).as_posix()
            yield BundledFile(path=relative, size_bytes=path.stat().st_size, sha256=digest)


def _write_archive(folder: Path, output: Path) -> None:
    """In a fixed order, owned by nobody in particular, so that only what is inside tells bundles apart."""
    beside = output.with_name(f".{output.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as raw:
            _fill(raw, folder, output.name.removesuffix(".tar.gz"))
        beside.replace(output)
    except OSError as error:
        raise BadInputError(
            f"the bundle can't be written: {error.strerror}",
            where=str(output),
            remedy="give another --output",
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _fill(raw: IO[bytes], folder: Path, name: str) -> None:
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(folder.rglob("*")):
            entry = archive.gettarinfo(path, arcname=f"{name}/{path.relative_to(folder).as_posix()}")
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = 0
            entry.mode = 0o755 if path.is_dir() or path.name == SCRIPT else 0o644
            if path.is_file():
                with path.open("rb") as file:
                    archive.addfile(entry, file)
            else:
                archive.addfile(entry)


class _Packed(gzip.GzipFile):
    """A bundle as tarfile reads it, which takes every header for as long as it says it is.

    ``left_bytes`` is what may still be read; None: all.
    """

    left_bytes: int | None = HEADER_BYTES_MAX

    def read(self, size: int | None = -1) -> bytes:
        if self.left_bytes is not None:
            if size is None or not 0 <= size <= self.left_bytes:
                raise tarfile.ReadError("a header is longer than any of a bundle's")
            self.left_bytes -= size
        return super().read(size)


def unpack(bundle: Path, place: Path) -> Path:
    """Unpack a bundle below ``place`` and check what came out; gives its folder.

    Raises BadInputError for what is no bundle, is damaged or too large, has a member that would land
    elsewhere, or holds what no bundle of kilonode's does; MissingRequirementError where the disk is too full.
    """
    try:
        require_file(bundle)
        with _Packed(bundle) as packed, tarfile.open(fileobj=packed, mode="r:") as archive:
            members = _members(archive, packed, bundle)
            place.mkdir(parents=True, exist_ok=True)
            _require_space(place, sum(member.size for member in members))
            packed.left_bytes = None
            archive.extractall(place, members=members, filter="data")
    except _TAR_ERRORS as error:
        raise BadInputError(f"it is no bundle: {error}", where=str(bundle), remedy=_ASK_AGAIN) from error
    folders = {place.joinpath(*PurePosixPath(member.name).parts[:1]) for member in members}
    if len(folders) != 1 or not (folder := folders.pop()).joinpath(MANIFEST).is_file():
        raise BadInputError("it is no bundle of kilonode's", where=str(bundle), remedy=_ASK_AGAIN)
    _check_texts(folder, bundle)
    _check(folder, bundle)
    return folder


def _members(archive: tarfile.TarFile, packed: _Packed, bundle: Path) -> Sequence[tarfile.TarInfo]:
    """What ``archive`` holds; it is read no further than to the first thing that is refused."""
    members: list[tarfile.TarInfo] = []
    size_bytes = 0
    for member in archive:
        packed.left_bytes = HEADER_BYTES_MAX
        members.append(member)
        size_bytes += member.size
        if size_bytes > UNPACKED_BYTES_MAX or len(members) > FILES_MAX:
            raise BadInputError(
                f"it would unpack to {len(members):,} files of {mib(size_bytes)} MiB or more",
                where=str(bundle),
                remedy="unpack it by hand if you trust it",
            )
        _check_member(member, bundle)
    return members


def _check_member(member: tarfile.TarInfo, bundle: Path) -> None:
    path = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir()) or path.is_absolute() or ".." in path.parts:
        raise BadInputError(
            f"it holds {member.name!r}, which is no plain file in its folder",
            where=str(bundle),
            remedy=_ASK_AGAIN,
        )
    if not member.name.isprintable() or len(path.parts) > DEPTH_MAX:
        raise ValueError(f"{member.name!r} is no name of a file of one")
    if not 0 <= member.size <= (JSON_BYTES_MAX if path.suffix == ".json" else FILE_BYTES_MAX):
        raise ValueError(f"{member.name} has {member.size:,} bytes")


def _require_space(place: Path, size_bytes: int) -> None:
    free_bytes = shutil.disk_usage(place).free
    if size_bytes > free_bytes:
        raise MissingRequirementError(
            f"the bundle unpacks to {mib(size_bytes)} MiB, and {mib(free_bytes)} MiB are free",
            where=str(place),
            remedy="free some, or set TMPDIR to another disk",
        )


def load_manifest(folder: Path) -> Manifest:
    """The manifest of an unpacked bundle. Raises BadInputError for another format."""
    return load_versioned(folder / MANIFEST, Manifest, formats=(FORMAT,), made_by="`kilonode bundle`")


def _check(folder: Path, bundle: Path) -> None:
    found = {file.path: file for file in _files(folder)}
    listed = {file.path: file for file in load_manifest(folder).files}
    wrong = sorted(path for path in found.keys() | listed.keys() if found.get(path) != listed.get(path))
    if wrong:
        raise BadInputError(
            f"{wrong[0]} is not what the bundle's manifest lists",
            where=str(bundle),
            remedy=_ASK_AGAIN,
        )


def _check_texts(folder: Path, bundle: Path) -> None:
    """What is printed here, and what nft reads, as root."""
    for path in sorted(folder.rglob("*.json")):
        if _CONTROL.search(path.read_bytes()):
            raise _foreign(f"{path.relative_to(folder)} has a control character in it", bundle)
    for path in sorted(folder.rglob("*.nft")):
        content = path.read_bytes()
        if b"include" in content and _INCLUDE.search(content):
            raise _foreign(f"{path.relative_to(folder)} has nft read another file", bundle)


def _foreign(what: str, bundle: Path) -> BadInputError:
    return BadInputError(f"{what}, as none of kilonode's does", where=str(bundle), remedy=_ASK_AGAIN)
