"""Where results live, written so that a crash at any moment leaves something readable.

    runs/
      latest -> 20251115T101500Z-1a2b3c
      20251115T101500Z-1a2b3c/
        session.json
        control-plane/     the ends of its components' logs
        scenarios-test_ladder.py-test_daemonset-10k-1.35.0/
          result.json      what was asked, the outcome and the verdict: for reading
          evidence.json    every record and sample: for programs
          logs/

``result.json`` is written three times: when a measurement starts, when it is measured, when it is checked.
Every file is written beside its place, synced and renamed, so a reader sees the old one or the new one and
never a half. ``load_run`` joins the two files again.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from framework.errors import BadInputError, KilonodeError
from framework.outcome import Evidence, Record, RunResult
from framework.process import end_of
from framework.units import MIB
from framework.versioned_file import load_versioned, now_utc, replace_file, writing_below

FORMAT: Final = 4
"""Version of the files of a run folder; raised by every change that older readers can't read.

2 added phases, fates, traffic, OOM scores, restarts, pods and shapes; 3 the resolved scenario, each process's
memory over time, and the CPU's model; 4 what disturbed a measurement.
"""
FORMATS_READ: Final = (1, 2, 3, FORMAT)
LATEST: Final = "latest"
SESSION_FILE: Final = "session.json"
RESULT_FILE: Final = "result.json"
EVIDENCE_FILE: Final = "evidence.json"
CONTROL_PLANE: Final = "control-plane"
LOG_BYTES_MAX: Final = 4 * MIB
"""kube-controller-manager can write 40 MB about the events of 100,000 nodes."""
SLUG_CHARS_MAX: Final = 120
MEASUREMENTS_OF_ONE_TEST_MAX: Final = 10_000
_NOT_SLUG: Final = re.compile(r"[^A-Za-z0-9._]+", re.ASCII)

R = TypeVar("R", bound=msgspec.Struct)


class Session(Record, frozen=True, kw_only=True):
    """One invocation, of many measurements maybe. ``ended_utc`` is None while it runs and if it broke."""

    format: int
    run_id: str
    started_utc: str
    ended_utc: str | None
    command: str


class _Stamp(msgspec.Struct):
    """What every file of every format version has."""

    format: int


class _EvidenceFile(Record, frozen=True, kw_only=True):
    format: int
    evidence: Evidence


@dataclass(frozen=True)
class MeasurementFolder:
    """The folder of one measurement."""

    path: Path

    @property
    def logs(self) -> Path:
        """Where the daemons of this measurement write their logs."""
        return self.path / "logs"

    def write(self, result: RunResult) -> None:
        """Write a result; its evidence goes to a file of its own, and first, so that no result lacks it.

        Raises KilonodeError where it can't be written; what was written before stays as it was.
        """
        if result.evidence is not None:
            held = _EvidenceFile(format=FORMAT, evidence=result.evidence)
            self._replace(EVIDENCE_FILE, msgspec.json.encode(held))
        bare = msgspec.structs.replace(result, evidence=None)
        self._replace(RESULT_FILE, msgspec.json.format(msgspec.json.encode(bare), indent=2))

    def filling(self) -> AbstractContextManager[None]:
        """Raises KilonodeError for what the body could not write here."""
        return writing_below(self.path)

    def _replace(self, name: str, content: bytes) -> None:
        with self.filling():
            replace_file(self.path / name, content)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one session."""

    path: Path
    session: Session

    @classmethod
    def create(cls, runs: Path, *, command: Sequence[str]) -> RunFolder:
        """A new folder under ``runs``, with ``latest`` pointing to it."""
        now = datetime.now(UTC)
        run_id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        path = runs / run_id
        with writing_below(runs):
            path.mkdir(parents=True)
        session = Session(
            format=FORMAT,
            run_id=run_id,
            started_utc=now.isoformat(timespec="seconds"),
            ended_utc=None,
            command=shlex.join(command),
        )
        folder = cls(path, session)
        folder._write_session(session)
        _point_latest(runs, run_id)
        return folder

    def start(self, result: RunResult) -> MeasurementFolder:
        """A folder for one measurement, with ``result`` (at stage "started") written to it."""
        with writing_below(self.path):
            measurement = MeasurementFolder(_new_folder(self.path, slug(result.test_id)))
            measurement.logs.mkdir()
        measurement.write(result)
        return measurement

    def keep_logs(self, logs: Path) -> None:
        """Keep the control plane's logs, of each file the last ``LOG_BYTES_MAX``."""
        kept = self.path / CONTROL_PLANE
        with writing_below(self.path):
            kept.mkdir(exist_ok=True)
            for log in logs.glob("*.log"):
                (kept / log.name).write_bytes(end_of(log, LOG_BYTES_MAX))

    def end(self) -> None:
        """Note that the session came to its end."""
        self._write_session(msgspec.structs.replace(self.session, ended_utc=now_utc()))

    def _write_session(self, session: Session) -> None:
        content = msgspec.json.format(msgspec.json.encode(session), indent=2)
        with writing_below(self.path):
            replace_file(self.path / SESSION_FILE, content)


def slug(test_id: str) -> str:
    """A folder name for a test id; a long one is cut and gets a digest, so that it stays distinct."""
    name = _NOT_SLUG.sub("-", test_id).strip("-.") or "measurement"
    if len(name) <= SLUG_CHARS_MAX:
        return name
    digest = sha256(test_id.encode()).hexdigest()[:8]
    return f"{name[: SLUG_CHARS_MAX - len(digest) - 1]}-{digest}"


def load_run(path: Path) -> tuple[RunResult, ...]:
    """Every measurement of a session folder (``latest`` too) or of one measurement's folder, oldest first.

    Raises BadInputError when there is none, when a file is damaged or of another format version.
    """
    folders = [path] if (path / RESULT_FILE).is_file() else sorted(path.glob(f"*/{RESULT_FILE}"))
    if not folders and not (path / SESSION_FILE).is_file():
        raise BadInputError(
            "there is no run here",
            where=str(path),
            remedy=f"give a folder that holds {SESSION_FILE} or {RESULT_FILE}, such as runs/{LATEST}",
        )
    results = (load_measurement(found if found.is_dir() else found.parent) for found in folders)
    return tuple(sorted(results, key=lambda result: result.started_utc))


def load_session(path: Path) -> Session:
    """The session of a session folder. Raises BadInputError as ``load_run`` does."""
    return _load(path / SESSION_FILE, Session)


def load_measurement(folder: Path) -> RunResult:
    """The measurement of one folder. Raises BadInputError as ``load_run`` does."""
    result = _load(folder / RESULT_FILE, RunResult)
    evidence_path = folder / EVIDENCE_FILE
    if not evidence_path.is_file():
        return result
    return msgspec.structs.replace(result, evidence=_load(evidence_path, _EvidenceFile).evidence)


def _load(path: Path, kind: type[R]) -> R:
    return load_versioned(path, kind, formats=FORMATS_READ, made_by="a run of kilonode")


def _point_latest(runs: Path, run_id: str) -> None:
    beside = runs / f".{LATEST}.{secrets.token_hex(4)}"
    beside.symlink_to(run_id, target_is_directory=True)
    try:
        beside.replace(runs / LATEST)
    except OSError as error:
        beside.unlink()
        raise KilonodeError(
            f"the link to the newest run can't be replaced: {error.strerror}",
            where=str(runs / LATEST),
            remedy="remove what is there",
        ) from error


def _new_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or ``name-2`` and so on where the same test already measured."""
    for number in range(1, MEASUREMENTS_OF_ONE_TEST_MAX + 1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise KilonodeError(
        f"{name} measured {MEASUREMENTS_OF_ONE_TEST_MAX:,} times",
        where=str(parent),
        remedy="start a new session",
    )
