"""Named node profiles: what else runs on an ordinary node, so that "a node with 2 GB" is no empty one.

The sizes are assumptions, not measurements, and every result lists them. They stay below what providers set
aside for a node's own daemons: GKE reserves a quarter of the first 4 GiB (512 MiB of a 2 GiB node), EKS 255
MiB and 11 more for each pod (376 MiB with 11 pods); kubelet, containerd and kube-proxy take a part of that
for themselves. One application's pod comes on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from framework.errors import BadInputError
from framework.spec import Ballast
from framework.units import MIB, parse_bytes

PROFILES: Final[Mapping[str, tuple[Ballast, ...]]] = {
    "ordinary": (
        Ballast(name="system-daemons", kind="system", memory_bytes=60 * MIB),
        Ballast(name="journal", kind="system", memory_bytes=40 * MIB, content="page_cache"),
        Ballast(name="cni-agent", kind="burstable", memory_bytes=80 * MIB),
        Ballast(name="log-shipper", kind="burstable", memory_bytes=70 * MIB),
        Ballast(name="app", kind="burstable", memory_bytes=150 * MIB),
    ),
}


POD_BYTES: Final = 11 * MIB // 2
"""A pod's shim (4 MiB) and kernel memory (1.5 MiB), beside what it holds (26 November 2026)."""


def unreclaimable_bytes(ballast: Iterable[Ballast]) -> int:
    """What of ``ballast`` a node can't take back: no page cache, and what pods cost by themselves."""
    return sum(
        each.memory_bytes * (each.content == "anonymous") + POD_BYTES * (each.kind != "system")
        for each in ballast
    )


def profile(name: str) -> tuple[Ballast, ...]:
    """The ballast of a named profile. Raises BadInputError for an unknown one."""
    if name not in PROFILES:
        raise BadInputError(
            f"there is no node profile {name!r}",
            where="ballast",
            remedy=f"give a size such as 300MiB, Ballast objects, or one of {', '.join(PROFILES)}",
        )
    return PROFILES[name]


def parse_ballast(text: str) -> tuple[Ballast, ...]:
    """The ballast of a profile (``ordinary``) or of a size (``300MiB``), which a system daemon holds.

    ``0`` is none. Raises BadInputError for anything else.
    """
    if not text[:1].isdigit():
        return profile(text)
    size_bytes = parse_bytes(text, where="ballast")
    return (Ballast(name="ballast", kind="system", memory_bytes=size_bytes),) if size_bytes else ()
