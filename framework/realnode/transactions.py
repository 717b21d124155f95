"""What kube-proxy hands to nft, kept in files.

nft reads a transaction from a pipe, and one that was killed leaves nothing behind. So a node that is asked
to capture them gets a small sh in place of its nft: it stores what ``nft -f -`` would read, and only then
becomes the real nft, with that file as its standard input. The process keeps its pid, its name in the kernel
log and its memory; it starts a little later, and the file's pages are charged to the node. A node with such
an nft is a *twin* of the one that is measured, and says so in its deviations.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

_WRAPPER: Final = """\
#!/bin/sh
# Stores a transaction before the real nft reads it.
[ "$*" = "-f -" ] || exec {nft} "$@"
file={folder}/$(date +%s%N)-$$
cat > "$file.part" && mv "$file.part" "$file.nft" && exec {nft} "$@" < "$file.nft"
"""
_SUFFIX: Final = ".nft"
_EXECUTABLE: Final = 0o755


def capture_transactions(nft: Path, folder: Path) -> None:
    """Put a wrapper in the place of ``nft`` that stores each transaction in ``folder``.

    The real one moves to a folder beside it and keeps its name, by which the kernel knows the process.
    """
    folder.mkdir(parents=True)
    real = nft.parent / "real" / nft.name
    real.parent.mkdir()
    nft.rename(real)
    nft.write_text(_WRAPPER.format(nft=shlex.quote(str(real)), folder=shlex.quote(str(folder))))
    nft.chmod(_EXECUTABLE)


def captured_transactions(folder: Path) -> tuple[Path, ...]:
    """The files of ``folder``, oldest first; none where nothing was captured."""
    return tuple(sorted(folder.glob(f"*{_SUFFIX}")))
