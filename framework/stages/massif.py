"""What massif writes, read into records: a pure parser of its output file.

The file is a list of snapshots. Each says how many bytes the program had asked its heap for, what heap
administration costs beyond that, and, if it is a detailed one, which calls asked for them: a tree whose root
is the allocation functions, whose children are their callers, and so on outwards. A line is

    n2: 1016928 0x487D6F5: mnl_nlmsg_put_header (in /usr/lib/x86_64-linux-gnu/libmnl.so.0.2.0)

with the number of the node's children, its bytes, and a frame. A stripped library's frame has ``???`` for its
function, one with debug symbols has a source line instead of the library's path. Callers with few bytes would
be put together in a line without a frame, whose calls nobody knows: such a profile is refused, and
``--threshold=0`` has none.

The tree is flattened into *stacks*: bytes with the frames that asked for them, innermost first. An address
tells calls of one stripped function apart, within one run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final, Literal, NamedTuple

from framework.errors import BadInputError

Tree = Literal["empty", "detailed", "peak"]

_NODE: Final = re.compile(r" *n(?P<children>\d+): (?P<bytes>\d+) (?P<what>.*)")
_FRAME: Final = re.compile(r"(?P<address>0x[0-9A-F]+): (?P<function>.*) \((?P<in>in )?(?P<place>.*)\)")
_FIELDS: Final = ("snapshot", "time", "mem_heap_B", "mem_heap_extra_B", "mem_stacks_B")
_RULE: Final = "#-----------"
_UNKNOWN: Final = "???"
_HEAD: Final = ("desc: ", "cmd: ", "time_unit: i")


class Frame(NamedTuple):
    """One call. ``function`` is empty in a stripped library, ``library`` where a source line is known."""

    function: str
    library: str
    address: str = ""


_ROOT: Final = Frame("", "")
"""The allocation functions; no frame of a stack."""


class Stack(NamedTuple):
    """Bytes that are held, and the calls that asked for them, innermost first."""

    size_bytes: int
    frames: tuple[Frame, ...]


class Snapshot(NamedTuple):
    """The heap at one moment. ``admin_bytes`` is massif's estimate of what administration adds."""

    number: int
    instructions: int
    heap_bytes: int
    admin_bytes: int
    tree: Tree
    stacks: tuple[Stack, ...]


def parse_massif(text: str) -> tuple[Snapshot, ...]:
    """The snapshots of an output file with ``--time-unit=i``, in the order of time.

    Raises BadInputError for what is no such file, and for one that ends in the middle of a snapshot.
    """
    lines = [line for line in text.splitlines() if line != _RULE]
    if len(lines) < len(_HEAD) or any(
        not line.startswith(head) for line, head in zip(lines, _HEAD, strict=False)
    ):
        raise _not_whole("it does not begin as one")
    rest = iter(lines[len(_HEAD) :])
    try:
        return tuple(_snapshot(line, rest) for line in rest)
    except ValueError as error:
        raise _not_whole(str(error)) from error


def _not_whole(why: str) -> BadInputError:
    return BadInputError(
        f"this is no whole output of massif: {why}",
        where="massif",
        remedy="profile again; a profile that was interrupted is not whole",
    )


def _snapshot(line: str, lines: Iterator[str]) -> Snapshot:
    values = []
    for field in _FIELDS:
        name, _, value = line.partition("=")
        if name != field:
            raise ValueError(f"{line!r} instead of {field}")
        values.append(int(value))
        line = next(lines, "")
    tree = _tree(line)
    stacks = () if tree == "empty" else tuple(_stacks(lines))
    number, instructions, heap_bytes, admin_bytes, _ = values
    return Snapshot(number, instructions, heap_bytes, admin_bytes, tree, stacks)


def _tree(line: str) -> Tree:
    match line:
        case "heap_tree=empty":
            return "empty"
        case "heap_tree=detailed":
            return "detailed"
        case "heap_tree=peak":
            return "peak"
    raise ValueError(f"{line!r} instead of a heap tree")


def _stacks(lines: Iterator[str]) -> Iterator[Stack]:
    """What each node holds beyond its children; without recursion, for trees are as deep as stacks."""
    path: list[Frame] = []
    left: list[tuple[int, int]] = []
    while True:
        node = _NODE.fullmatch(next(lines, ""))
        if node is None:
            raise ValueError("a heap tree breaks off")
        size_bytes = int(node["bytes"])
        if left:
            left[-1] = (left[-1][0] - 1, left[-1][1] - size_bytes)
        path.append(_frame(node["what"]) if path else _ROOT)
        left.append((int(node["children"]), size_bytes))
        while left and left[-1][0] == 0:
            own_bytes = left.pop()[1]
            if own_bytes:
                yield Stack(own_bytes, tuple(path[1:]))
            path.pop()
        if not left:
            return


def _frame(text: str) -> Frame:
    found = _FRAME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no call")
    function = "" if found["function"] == _UNKNOWN else found["function"]
    return Frame(function, PurePath(found["place"]).name if found["in"] else "", found["address"])
