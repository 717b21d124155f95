"""A memory cgroup's counters as text, read with an ordinary program on another machine.

``head -v`` of all files that either version has prints those that are there, each below its name: one
command, without a shell and so without a question of quoting.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

from framework.cgroup_counters import FILES, CgroupMode, CgroupReading, oom_kills_of, reading_of

_FOLDERS: Final[dict[CgroupMode, str]] = {"v1": "/sys/fs/cgroup/memory/", "v2": "/sys/fs/cgroup/"}
COUNTER_FILES: Final = tuple(
    f"{folder}{name}" for mode, folder in _FOLDERS.items() for name in FILES[mode] if name is not None
)
_HEADER: Final = re.compile(r"^==> (\S+) <==$", re.MULTILINE)


def parse_counters(text: str) -> CgroupReading | None:
    """The counters in what ``head -v`` printed; None where what is charged is not among them, or was cut.

    OOM kills are the cgroup's own: version 1 counts none of the cgroups below.
    """
    pieces = _HEADER.split(text)
    listed = dict(zip(pieces[1::2], pieces[2::2], strict=False))
    for mode, folder in _FOLDERS.items():
        texts = {path.removeprefix(folder): body for path, body in listed.items()}
        if all(texts.get(name, "").strip() for name in FILES[mode].figures):
            with suppress(KeyError, ValueError):
                return reading_of(mode, texts, oom_kills=oom_kills_of(texts.get(FILES[mode].events, "")))
    return None
