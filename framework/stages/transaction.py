"""What is counted in the text of a transaction, as kube-proxy writes it.

Up to 1.35 an endpoint has a chain of its own whose rule ends with ``dnat to ADDRESS:PORT``; from 1.36 on the
Service's rule has a map, ``map { 0 : ADDRESS . PORT, ... }``.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from framework.stages.model import Transaction

_CHAIN: Final = re.compile(rb"^add chain ", re.M)
_RULE: Final = re.compile(rb"^add rule ", re.M)
_DNAT: Final = re.compile(rb"\bdnat to \[?([0-9A-Fa-f.:]+?)\]?:(\d+)$", re.M)
_MAPPED: Final = re.compile(rb"\b\d+ : ([0-9A-Fa-f.:]+) \. (\d+)\b")


def count_transaction(text: bytes) -> Transaction:
    """Its size, digest, and what it adds."""
    return Transaction(
        size_bytes=len(text),
        sha256=hashlib.sha256(text).hexdigest(),
        chains=len(_CHAIN.findall(text)),
        rules=len(_RULE.findall(text)),
        endpoints=len({*_DNAT.findall(text), *_MAPPED.findall(text)}),
    )
