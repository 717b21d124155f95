"""What the kernel holds for kube-proxy in iptables mode, counted from ``iptables-save``.

A Service's ClusterIP leads to a chain for each of its ports, ``KUBE-SVC-...`` (``KUBE-SVL-...`` for the
node's own endpoints), named in a rule whose comment is ``namespace/name:port cluster IP``. From there a rule
for each endpoint leads to a chain of its own, ``KUBE-SEP-...``, which ends in ``DNAT --to-destination
ADDRESS:PORT``. From 1,000 endpoints on kube-proxy leaves the comments of these rules out, so endpoints are
found by following the jumps. A port without an endpoint for this node has a rule in the filter table that
drops or rejects, with the comment ``namespace/name:port has no endpoints`` (or ``no local endpoints``).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Set
from typing import Final

from framework.outcome import Ruleset

_CHAIN: Final = re.compile(r":(?P<name>KUBE-\S+) ")
_RULE: Final = re.compile(r"-A (?P<chain>\S+) (?P<rest>.*)")
_JUMP: Final = re.compile(r" -[jg] (?P<target>\S+)")
_DNAT: Final = re.compile(r" -j DNAT --to-destination (?P<destination>\S+)")
_PORT: Final = re.compile(
    r'--comment "(?P<service>[^/" ]+/[^:" ]+):?(?P<port>[^" ]*) (?:cluster IP|has no (?:local )?endpoints)"'
)
_SERVICE_CHAINS: Final = ("KUBE-SVC-", "KUBE-SVL-")


class IptablesCounter:
    """Counts the output of ``iptables-save`` and ``ip6tables-save``, fed in pieces of any size.

    ``services`` names those (``namespace/name``) whose endpoints and ports are counted; without it those of
    every Service are.
    """

    def __init__(self, services: Collection[str] | None = None) -> None:
        self._services = frozenset(services) if services is not None else None
        self._rest = ""
        self._table = ""
        self._family = 0
        self._tables: set[tuple[int, str]] = set()
        self._chains = self._rules = self._bytes = 0
        self._ports: set[tuple[int, str, str]] = set()
        self._roots: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
        self._jumps: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
        self._destinations: dict[tuple[int, str], str] = {}

    def feed(self, text: str) -> None:
        """Take the next piece of a listing."""
        self._bytes += len(text.encode())
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take(line)

    def next_family(self) -> None:
        """The listing of another IP family begins, whose chains have the same names."""
        self._family += 1
        self._rest = ""

    def ruleset(self, expected: Set[tuple[str, str]] | None = None) -> Ruleset:
        """The counts of what was fed; ``expected`` are the pairs of address and port that may be there."""
        endpoints = {
            (service, self._destinations[family, endpoint_chain])
            for (family, chain), services in self._roots.items()
            for endpoint_chain in self._jumps[family, chain]
            if (family, endpoint_chain) in self._destinations
            for service in services
        }
        return Ruleset(
            tables=len(self._tables),
            chains=self._chains,
            rules=self._rules,
            elements=0,
            endpoints=len(endpoints),
            listing_bytes=self._bytes,
            unexpected=sum(expected is not None and _pair(where) not in expected for _, where in endpoints),
            service_ports=len(self._ports),
        )

    def _take(self, line: str) -> None:
        if line.startswith("*"):
            self._table = line[1:]
        elif _CHAIN.match(line):
            self._chains += 1
            self._tables.add((self._family, self._table))
        elif rule := _RULE.match(line):
            self._take_rule(rule["chain"], f" {rule['rest']}")

    def _take_rule(self, chain: str, rest: str) -> None:
        jump = _JUMP.search(rest)
        target = jump["target"] if jump is not None else ""
        if not (chain.startswith("KUBE-") or target.startswith("KUBE-")):
            return
        self._rules += 1
        if chain == "KUBE-SERVICES":
            self._take_port(rest, target)
        elif chain.startswith(_SERVICE_CHAINS):
            self._jumps[self._family, chain].add(target)
        elif found := _DNAT.search(rest):
            self._destinations[self._family, chain] = found["destination"]

    def _take_port(self, rest: str, target: str) -> None:
        port = _PORT.search(rest)
        if port is None or (self._services is not None and port["service"] not in self._services):
            return
        self._ports.add((self._family, port["service"], port["port"]))
        if target.startswith(_SERVICE_CHAINS):
            self._roots[self._family, target].add(port["service"])


def _pair(destination: str) -> tuple[str, str]:
    """Address and port of ``10.64.0.1:80`` or ``[fd00:10:64::1]:80``."""
    address, _, port = destination.rpartition(":")
    return address.strip("[]"), port
