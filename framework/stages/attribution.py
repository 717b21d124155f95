"""Which stage of nft a byte of its heap belongs to, told from the calls that asked for it.

Distributions strip nft's libraries, but a frame still names its library, and what a library exports keeps its
name. That suffices, because each stage has a library of its own: libnftables parses and evaluates, libnftnl
makes the objects that netlink messages are written from, libnftnl's ``nftnl_batch`` and libmnl hold the
messages. So the innermost frame that is not of a helper (libc, libgmp) decides. What is made while the
kernel's answers are read, or while lists of them are walked, is nft's cache of the ruleset, whoever makes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from framework.errors import BadInputError
from framework.stages.massif import Frame, Snapshot, Stack
from framework.stages.model import HeapProfile, StageBytes

_PARSER: Final = "libnftables."
_MESSAGES: Final = ("libnftnl.", "libmnl.")
_HELPERS: Final = ("libc.", "libgmp.")
_OF_KERNEL: Final = re.compile(r"mnl_cb_run2?|nftnl_\w+_foreach")
_BATCH: Final = re.compile(r"nftnl_batch_\w+|mnl_nlmsg_batch_\w+")
_CONTEXT: Final = "nft_ctx_new"
_RUN: Final = "nft_run_cmd_from_"


def stage_of(frames: Sequence[Frame]) -> str:
    """The field of StageBytes that a stack's bytes belong to; ``frames`` are innermost first."""
    own = [frame for frame in frames if frame.library and not frame.library.startswith(_HELPERS)]
    messages = _leading(own)
    if any(_BATCH.fullmatch(frame.function) for frame in messages):
        return "netlink_bytes"
    if any(_OF_KERNEL.fullmatch(frame.function) for frame in own):
        return "cache_bytes"
    if any(frame.library.startswith("libnftnl.") for frame in messages):
        return "structures_bytes"
    if messages or not own or not own[0].library.startswith(_PARSER):
        return "other_bytes"
    return _stage_of_parser(own)


def _stage_of_parser(own: Sequence[Frame]) -> str:
    """Of what libnftables asked for itself; who runs the transaction reads its text too."""
    if any(frame.function == _CONTEXT for frame in own):
        return "other_bytes"
    if any(frame.function.startswith(_RUN) for frame in own[1:2]):
        return "input_bytes"
    return "parse_tree_bytes"


def _leading(frames: Sequence[Frame]) -> Sequence[Frame]:
    """The innermost frames that are in libnftnl or libmnl."""
    for index, frame in enumerate(frames):
        if not frame.library.startswith(_MESSAGES):
            return frames[:index]
    return frames


def by_stage(stacks: Iterable[Stack]) -> StageBytes:
    """The bytes of a heap tree by stage."""
    sums = dict.fromkeys(StageBytes.__struct_fields__, 0)
    for stack in stacks:
        sums[stage_of(stack.frames)] += stack.size_bytes
    return StageBytes(**sums)


def heap_profile(snapshots: Sequence[Snapshot], sent_bytes: int) -> HeapProfile:
    """What the snapshots of one load say. Raises BadInputError where it never came to a netlink buffer."""
    detailed = [(snapshot, by_stage(snapshot.stacks)) for snapshot in snapshots if snapshot.tree != "empty"]
    batches = [stages for _, stages in detailed if stages.netlink_bytes]
    peaks = [(snapshot, stages) for snapshot, stages in detailed if snapshot.tree == "peak"]
    if not batches or not peaks:
        raise BadInputError(
            "nft loaded nothing: its heap never held a netlink buffer",
            where="massif",
            remedy="give a transaction that changes the ruleset",
        )
    peak, at_peak = peaks[-1]
    most = {
        name: max(getattr(stages, name) for _, stages in detailed) for name in StageBytes.__struct_fields__
    }
    return HeapProfile(
        peak=at_peak,
        admin_bytes=peak.admin_bytes,
        most=StageBytes(**most),
        batch_began=batches[0],
        sent_bytes=sent_bytes,
        snapshots=len(snapshots),
    )
