"""Ballast as processes: what holds a node's memory where no pod does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from framework.process import Daemon
from framework.realnode import hold
from framework.realnode.private_copy import evict
from framework.spec import Ballast
from framework.wait import wait_until

BALLAST_TIMEOUT_S: Final = 60.0
_FILE_PIECE: Final = bytes(range(256)) * 4096


def hold_argv(ballast: Ballast, folder: Path) -> list[str]:
    """The command that holds ``ballast``; its file, if it has one, is made in ``folder``."""
    what = str(ballast.memory_bytes)
    if ballast.content == "page_cache":
        what = str(_file(ballast, folder))
    return [sys.executable, "-S", "-E", hold.__file__, ballast.name, ballast.content, what]


def wait_until_held(daemon: Daemon) -> None:
    """Wait until a process that holds memory has all of it. Raises KilonodeError when it ended."""

    def held() -> bool | None:
        daemon.require_alive()
        return "held" in daemon.log_tail() or None

    wait_until(held, what=f"ballast {daemon.name} held", timeout_s=BALLAST_TIMEOUT_S)


def _file(ballast: Ballast, folder: Path) -> Path:
    """A file on disk whose pages nobody holds yet: who reads it first is charged for them."""
    path = folder / f"{ballast.name}.ballast"
    with path.open("wb") as file:
        for offset in range(0, ballast.memory_bytes, len(_FILE_PIECE)):
            file.write(_FILE_PIECE[: ballast.memory_bytes - offset])
    evict(path)
    return path
