"""Which stage of nft a byte of its heap belongs to, told from the calls that asked for it.

Distributions strip nft's libraries, but a frame still names its library, and what a library exports keeps its
name. That suffices, because each stage has a library of its own: libnftables parses and evaluates, libnftnl
makes the objects that netlink messages are written from, libnftnl's ``nftnl_batch`` and libmnl hold the
messages. So the innermost frame that is not of a helper (libc, libgmp) decides. What is made while the
kernel's answers are read, or while lists of them are walked, is nft's cache of the ruleset, whoever makes it.

Parsing and evaluation share a library, and their functions are not exported. What tells them apart is the
call by which nft goes from stage to stage: up to it a stack of the parser's is the same as one of the netlink
buffer's, and there they part. A stack of the parser's is known by time: before nft reads its cache, with
which evaluation begins, there is nothing else.
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
_TREE: Final = "tree"


Road = list[str]
"""The addresses of calls, outermost first."""


def stage_of(frames: Sequence[Frame], parser: Road) -> str:
    """The field of StageBytes that a stack's bytes belong to; ``frames`` are innermost first.

    ``parser`` is what the roads to the parser's memory begin with; see ``parsers_road``.
    """
    library = _stage_of_library(frames)
    if library != _TREE:
        return library
    return "parsed_bytes" if _road(frames)[: len(parser)] == parser else "evaluated_bytes"


def _stage_of_library(frames: Sequence[Frame]) -> str:
    """The same, as far as libraries tell it."""
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
    return _TREE


def _leading(frames: Sequence[Frame]) -> Sequence[Frame]:
    """The innermost frames that are in libnftnl or libmnl."""
    for index, frame in enumerate(frames):
        if not frame.library.startswith(_MESSAGES):
            return frames[:index]
    return frames


def _road(frames: Sequence[Frame]) -> Road:
    return [frame.address for frame in reversed(frames)]


def parsers_road(snapshots: Sequence[Snapshot]) -> Road:
    """The calls by which nft comes to its parser.

    Raises BadInputError where the snapshots have no parsed tree, no cache after it, or no netlink buffer.
    """
    parsed: Stack | None = None
    seen: set[str] = set()
    for snapshot in snapshots:
        stages = [(_stage_of_library(stack.frames), stack) for stack in snapshot.stacks]
        seen |= {stage for stage, _ in stages}
        if "cache_bytes" in seen:
            break
        tree = [stack for stage, stack in stages if stage == _TREE]
        parsed = max(tree, key=lambda stack: stack.size_bytes, default=parsed)
    stacks = (stack for snapshot in reversed(snapshots) for stack in snapshot.stacks)
    sent = next((each for each in stacks if _stage_of_library(each.frames) == "netlink_bytes"), None)
    if parsed is None or sent is None or "cache_bytes" not in seen:
        raise BadInputError(
            "nft's stages can't be told apart: its heap never held a parsed tree, then a cache of the "
            "ruleset, then a netlink buffer",
            where="massif",
            remedy="give a transaction that adds rules, as kube-proxy's do",
        )
    road = _road(parsed.frames)
    parted = (
        index
        for index, (to_parser, to_batch) in enumerate(zip(road, _road(sent.frames), strict=False))
        if to_parser != to_batch
    )
    return road[: next(parted, len(road)) + 1]


def by_stage(stacks: Iterable[Stack], parser: Road) -> StageBytes:
    """The bytes of a heap tree by stage."""
    sums = dict.fromkeys(StageBytes.__struct_fields__, 0)
    for stack in stacks:
        sums[stage_of(stack.frames, parser)] += stack.size_bytes
    return StageBytes(**sums)


def heap_profile(snapshots: Sequence[Snapshot], sent_bytes: int) -> HeapProfile:
    """What the snapshots of one load say. Raises what ``parsers_road`` raises."""
    detailed = [snapshot for snapshot in snapshots if snapshot.tree != "empty"]
    parser = parsers_road(detailed)
    staged = [by_stage(snapshot.stacks, parser) for snapshot in detailed]
    at_peak = max(range(len(detailed)), key=lambda index: (detailed[index].tree == "peak", index))
    most = {name: max(getattr(stages, name) for stages in staged) for name in StageBytes.__struct_fields__}
    return HeapProfile(
        peak=staged[at_peak],
        admin_bytes=detailed[at_peak].admin_bytes,
        most=StageBytes(**most),
        batch_began=next(stages for stages in staged if stages.netlink_bytes),
        sent_bytes=sent_bytes,
        snapshots=len(snapshots),
    )
