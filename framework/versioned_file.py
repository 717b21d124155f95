"""Files that say which format they have: JSON, replaced as a whole or not at all, refused if it is another.

What kilonode measured is read by kilonodes of other ages. So each such file carries the version of its
format, and a reader that does not know it says so instead of guessing.
"""

from __future__ import annotations

import errno
import os
import secrets
import shlex
import stat
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from framework.errors import BadInputError, KilonodeError

S = TypeVar("S", bound=msgspec.Struct)


class _Stamp(msgspec.Struct):
    """What every version of every format has."""

    format: int


def load_versioned(path: Path, kind: type[S], *, formats: Collection[int], made_by: str) -> S:
    """Read what ``made_by`` wrote, a struct with a field ``format`` that is one of ``formats``.

    Raises BadInputError for no file, a damaged one, or another format.
    """
    remedy = f"give a file that {made_by} wrote"
    try:
        text = read_file(path)
    except OSError as error:
        raise BadInputError(
            f"the file can't be read: {error.strerror}", where=str(path), remedy=remedy
        ) from error
    try:
        found = msgspec.json.decode(text, type=_Stamp).format
        if found in formats:
            return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInputError(f"the file is damaged: {error}", where=str(path), remedy=remedy) from error
    except BadInputError as error:
        raise BadInputError(f"the file is damaged: {error.what}", where=str(path), remedy=remedy) from error
    raise BadInputError(
        f"the file has format {found}, this kilonode reads {', '.join(map(str, formats))}",
        where=str(path),
        remedy=f"make it again with {made_by}, or read it with the kilonode that wrote it",
    )


def read_file(path: Path) -> bytes:
    """All of a file. Raises OSError, as ``require_file`` does too."""
    require_file(path)
    return path.read_bytes()


def require_file(path: Path) -> None:
    """Raises OSError for no file, and for a pipe or a device: nobody knows how long to wait for them."""
    if stat.S_IFMT(path.stat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def write_versioned(path: Path, content: msgspec.Struct) -> None:
    """Write ``content``, which has a field ``format``, for ``load_versioned`` and for reading.

    Raises BadInputError where it can't be written.
    """
    try:
        replace_file(path, msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
    except OSError as error:
        raise BadInputError(
            f"the file can't be written: {error.strerror}", where=str(path), remedy="give another place"
        ) from error


def nearest_there(path: Path) -> Path:
    """``path`` if it is there, else the nearest of its parents that is."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


@contextmanager
def writing_below(folder: Path) -> Iterator[None]:
    """Raises KilonodeError for what the body could not write below ``folder``, as on a full disk."""
    try:
        yield
    except OSError as error:
        raise KilonodeError(
            f"nothing more can be written: {error.strerror or error}",
            where=error.filename or str(folder),
            remedy=f"free space on the disk of {folder}, or give another place",
        ) from error


def replace_file(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` as a whole or not at all, also when the machine dies.

    Of a link it is the file that it leads to. A device or a pipe (/dev/stdout) is written to, and stays one.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    place = Path(os.path.realpath(path))
    beside = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
    directory = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def now_utc() -> str:
    """This moment for a file's ``made_utc``: ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def this_command() -> str:
    """The command line of this process for a file's ``command``, as a shell takes it."""
    return shlex.join(["kilonode", *sys.argv[1:]])
