"""What an executable says about itself: its version, its digest, the Go release that built it."""

from __future__ import annotations

import errno
import hashlib
import mmap
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from framework.errors import MissingRequirementError
from framework.process import Completed, run
from framework.wait import wait_until

VERSION_TIMEOUT_S: Final = 30.0
TEXT_BUSY_TIMEOUT_S: Final = 5.0
_BUILD_INFO_MAGIC: Final = b"\xff Go buildinf:"
_BUILD_INFO_HEADER_BYTES: Final = 32
_BUILD_INFO_INLINE_FLAG: Final = 2


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def toolchain_of(path: Path) -> str:
    """The Go release that built ``path`` (``go1.26.8``); empty where there is none to be found.

    It is the first string of the build information that Go's linker writes even into stripped executables
    (debug/buildinfo; strings are inline since Go 1.18).
    """
    if path.stat().st_size == 0:
        return ""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        start = image.find(_BUILD_INFO_MAGIC)
        header = image[start : start + _BUILD_INFO_HEADER_BYTES + 1] if start >= 0 else b""
        if len(header) <= _BUILD_INFO_HEADER_BYTES or not header[15] & _BUILD_INFO_INLINE_FLAG:
            return ""
        text_start = start + len(header)
        return image[text_start : text_start + header[-1]].decode(errors="replace")


def version_output(path: Path, arguments: Sequence[str] = ("--version",)) -> str:
    """Both outputs of ``path`` with ``arguments``; empty when it can't be run.

    A file that was written a moment ago may still be open for writing in a child that another thread has
    forked and that did not reach its exec yet; the kernel then says "text file busy", and it is asked again.
    """

    def attempt() -> Completed | None:
        try:
            return run([path, *arguments], timeout_s=VERSION_TIMEOUT_S, check=False)
        except OSError as error:
            if error.errno == errno.ETXTBSY:
                return None
            if error.errno in (errno.ENOEXEC, errno.EACCES):
                return Completed((str(path),), 126, b"", str(error).encode(), 0.0)
            raise
        except MissingRequirementError:
            return Completed((str(path),), 127, b"", b"its interpreter is missing", 0.0)

    done = wait_until(attempt, what=f"running {path}", timeout_s=TEXT_BUSY_TIMEOUT_S)
    return (done.stdout + done.stderr).decode(errors="replace")


def says(output: str, expected: str) -> bool:
    """True when ``expected`` stands in ``output`` and is not merely the beginning of a longer version."""
    return re.search(re.escape(expected) + r"(?![\w.+-])", output) is not None
