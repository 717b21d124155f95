"""What the kernel holds for kube-proxy, counted from ``nft list ruleset`` (or from ``iptables-save``).

A sync that ended says that nft ended; only a listing says what is programmed. Both layouts are read: up to
1.35 a chain for each endpoint ends in ``dnat to ADDRESS:PORT``; from 1.36 on one rule of a Service holds all
of them in an anonymous map, ``map { 0 : ADDRESS . PORT, ... }``, in a single line which is megabytes long at
100,000 endpoints. So the text is taken in pieces that end at newlines *and* commas, and neither the listing
nor a line of it is ever held whole.

The listing runs in the node's network namespace but in the caller's memory cgroup: it needs as much memory as
the load did, and must not change what is measured.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence, Set
from pathlib import Path
from typing import Final

from framework.errors import MissingRequirementError, TimeLimitError
from framework.observe.iptables import IptablesCounter
from framework.outcome import Ruleset
from framework.process import CommandError, Completed, inside, run

LIST_TIMEOUT_S: Final = 300.0
KUBE_PROXY_TABLE: Final = "kube-proxy"
_READ_BYTES: Final = 1 << 18
_PIECE: Final = re.compile(r"[^,\n]*[,\n]")
_TABLE: Final = re.compile(r"table (?P<family>\w+) (?P<name>\S+) \{")
_BLOCK: Final = re.compile(r"\t(?P<kind>chain|set|map|flowtable|counter|quota|limit) (?P<name>\S+) \{")
_NO_RULE: Final = re.compile(r"\t\t(?:type \w+ hook |comment\b|policy )")
_DNAT: Final = re.compile(r"dnat (?:ip6? )?to \[?(?P<address>[0-9A-Fa-f.:]*[0-9A-Fa-f])\]?:(?P<port>\d+)$")
_SERVICE_CHAIN: Final = re.compile(r"(?:service|local|endpoint)-[A-Z0-9]+-(?P<service>[^/]+/[^/]+)/")
_GOTO: Final = re.compile(r" : goto (?:service|local)-[A-Z0-9]+-(?P<service>[^/]+/[^/]+)/(?P<port>\S+)")
_COMMENTED: Final = re.compile(r' comment "(?P<service>[^/"]+/[^:"]+):?(?P<port>[^"]*)" : (?:drop|goto)')
_MAPPED: Final = re.compile(r"\d+ : (?P<address>[0-9A-Fa-f.:]+) \. (?P<port>\d+)\b")


class RulesetCounter:
    """Counts a listing that is fed in pieces of any size.

    Tables other than kube-proxy's are not counted. ``services`` names those (``namespace/name``) whose
    endpoints (pairs of address and port) and ports are counted; without it those of every Service are.
    """

    def __init__(self, services: Collection[str] | None = None) -> None:
        self._services = frozenset(services) if services is not None else None
        self._rest = ""
        self._tables = self._chains = self._rules = self._elements = self._bytes = 0
        self._endpoints: set[tuple[str, str, str]] = set()
        self._ports: set[tuple[str, str]] = set()
        self._counting = False
        self._family = ""
        self._block = ""
        self._service = ""
        self._line_begins = True
        self._in_braces = False
        self._in_quotes = False

    def feed(self, text: str) -> None:
        """Take the next piece of the listing."""
        self._bytes += len(text.encode())
        text = self._rest + text
        end = 0
        for piece in _PIECE.finditer(text):
            end = piece.end()
            self._take(piece.group())
        self._rest = text[end:]

    def ruleset(self, expected: Set[tuple[str, str]] | None = None) -> Ruleset:
        """The counts of what was fed; ``expected`` are the pairs of address and port that may be there."""
        unexpected = [
            pair for _, *pair in self._endpoints if expected is not None and tuple(pair) not in expected
        ]
        return Ruleset(
            tables=self._tables,
            chains=self._chains,
            rules=self._rules,
            elements=self._elements,
            endpoints=len(self._endpoints),
            listing_bytes=self._bytes,
            unexpected=len(unexpected),
            service_ports=len(self._ports),
        )

    def _take(self, piece: str) -> None:
        line_begins, self._line_begins = self._line_begins, piece.endswith("\n")
        if line_begins:
            self._in_quotes = False
        piece = piece[:-1]
        if line_begins and not self._in_braces and self._take_bracket(piece):
            return
        if not self._counting or not piece.strip():
            return
        if self._block == "chain":
            self._take_rule(piece, line_begins)
        elif self._block in ("set", "map"):
            self._count_elements(piece)
            self._take_port(piece)

    def _take_bracket(self, line: str) -> bool:
        """Whether the line begins or ends a table or something in it."""
        if table := _TABLE.match(line):
            self._counting = table["name"] == KUBE_PROXY_TABLE
            self._family = table["family"]
            self._tables += self._counting
        elif block := _BLOCK.match(line):
            self._block = block["kind"]
            self._chains += self._counting and self._block == "chain"
            chain = _SERVICE_CHAIN.match(block["name"])
            self._service = self._asked(chain["service"]) if chain is not None else ""
        elif line in ("}", "\t}"):
            self._block = ""
            self._service = ""
        else:
            return False
        return True

    def _take_rule(self, piece: str, line_begins: bool) -> None:
        if line_begins and not self._in_braces:
            if _NO_RULE.match(piece):
                return
            self._rules += 1
        self._count_elements(piece)
        found = (_DNAT.search(piece) or _MAPPED.search(piece)) if self._service else None
        if found is not None:
            self._endpoints.add((self._service, found["address"], found["port"]))

    def _take_port(self, piece: str) -> None:
        """An element of the maps from ClusterIPs to chains, or to the verdict of those without endpoints."""
        found = _GOTO.search(piece) or _COMMENTED.search(piece)
        if found is not None and self._asked(found["service"]):
            self._ports.add((self._family, f"{found['service']}/{found['port']}"))

    def _asked(self, service: str) -> str:
        """``service``, empty unless it is one of those that are counted."""
        return service if self._services is None or service in self._services else ""

    def _count_elements(self, piece: str) -> None:
        """An element is what stands between two commas, or a comma and a brace, inside braces."""
        bare = self._outside_quotes(piece)
        if "{" in bare:
            self._in_braces = True
        self._elements += self._in_braces
        if "}" in bare:
            self._in_braces = False

    def _outside_quotes(self, piece: str) -> str:
        """``piece`` without comments, which may hold anything and go on after a comma."""
        if '"' not in piece:
            return "" if self._in_quotes else piece
        parts = piece.split('"')
        outside = parts[self._in_quotes :: 2]
        self._in_quotes ^= len(parts) % 2 == 0
        return " ".join(outside)


def read_ruleset(
    *,
    netns: str | None,
    services: Collection[str] | None = None,
    expected: Set[tuple[str, str]] | None = None,
    nft: Path | str = "nft",
    timeout_s: float = LIST_TIMEOUT_S,
    prefix: Sequence[str] = (),
) -> Ruleset:
    """List and count the ruleset of a named network namespace (None: the current one).

    ``prefix`` comes before the command, such as what runs it on another machine. ``expected`` are the pairs
    of address and port that the ``services`` have now.

    Raises CommandError when nft fails, TimeLimitError when it takes longer than ``timeout_s``, and
    MissingRequirementError when there is no such program.
    """
    counter = RulesetCounter(services)
    _feed(counter, inside([*prefix, str(nft), "list", "ruleset"], netns=netns), timeout_s)
    return counter.ruleset(expected)


def delete_ruleset(*, netns: str) -> None:
    """Delete kube-proxy's tables of a network namespace, as a boot would; raises like ``read_ruleset``."""
    tables = run(inside(["nft", "--json", "list", "tables"], netns=netns), timeout_s=LIST_TIMEOUT_S)
    for entry in json.loads(tables.stdout)["nftables"]:
        table = entry.get("table", {})
        if table.get("name") == KUBE_PROXY_TABLE:
            argv = ["nft", "delete", "table", table["family"], table["name"]]
            run(inside(argv, netns=netns), timeout_s=LIST_TIMEOUT_S)


def read_iptables(
    *,
    netns: str | None,
    services: Collection[str] | None = None,
    expected: Set[tuple[str, str]] | None = None,
    xtables: Path | str,
    timeout_s: float = LIST_TIMEOUT_S,
) -> Ruleset:
    """The same for kube-proxy in iptables mode; ``xtables`` is the program that is all of iptables."""
    counter = IptablesCounter(services)
    for program in ("iptables-save", "ip6tables-save"):
        counter.next_family()
        _feed(counter, inside([str(xtables), program], netns=netns), timeout_s)
    return counter.ruleset(expected)


def _feed(counter: RulesetCounter | IptablesCounter, argv: list[str], timeout_s: float) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for piece in _output(argv, timeout_s):
        counter.feed(decoder.decode(piece))


def _output(argv: list[str], timeout_s: float) -> Iterator[bytes]:
    """The standard output of a command as it comes."""
    start_s = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        except FileNotFoundError as error:
            raise MissingRequirementError(
                f"there is no program {error.filename!r}", remedy=f"install {argv[0]}"
            ) from None
        with process:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            try:
                yield from _pieces(process.stdout.fileno(), start_s + timeout_s, argv)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            errors.seek(0)
            took_s = time.monotonic() - start_s
            raise CommandError(
                Completed(tuple(argv), process.returncode, b"", errors.read(), took_s),
                "run as root; is the network namespace still there?",
            )


def _pieces(fd: int, deadline_s: float, argv: list[str]) -> Iterator[bytes]:
    while True:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline_s - time.monotonic()))
        if not ready:
            raise TimeLimitError(
                "the listing of the ruleset did not end in time",
                where=" ".join(argv),
                remedy="give a longer timeout_s: listing 100,000 endpoints takes half a minute or more",
            )
        piece = os.read(fd, _READ_BYTES)
        if not piece:
            return
        yield piece
