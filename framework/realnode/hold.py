"""A program, run inside a real node's memory cgroup: holds memory as a neighbour of the daemons would.

    python -S -E hold.py NAME anonymous BYTES
    python -S -E hold.py NAME page_cache FILE

``anonymous`` memory is written once. Of ``page_cache``, FILE is read from end to end each second: its pages
are the node's, the kernel may reclaim them, and then they are read from disk again. Standard library only,
because it is run as a file of its own. Prints "held" when it holds all.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

READ_INTERVAL_S = 1.0
READ_BYTES = 1 << 18
PAGE_BYTES = 4096


def hold_anonymous(size_bytes: int) -> None:
    held = bytearray(size_bytes)
    held[::PAGE_BYTES] = b"x" * len(range(0, size_bytes, PAGE_BYTES))
    print("held", flush=True)
    while True:
        time.sleep(3600)


def hold_page_cache(path: Path) -> None:
    buffer = bytearray(READ_BYTES)
    with path.open("rb", buffering=0) as file:
        while True:
            file.seek(0)
            while file.readinto(buffer):
                pass
            print("held", flush=True)
            time.sleep(READ_INTERVAL_S)


if __name__ == "__main__":
    name, content, what = sys.argv[1:]
    Path("/proc/self/comm").write_text(name)
    if content == "anonymous":
        hold_anonymous(int(what))
    else:
        hold_page_cache(Path(what))
