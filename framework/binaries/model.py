"""What is asked for and what is there: ``Request`` and ``Binary``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from framework.outcome import Component

BinarySource = Literal["explicit path", "download", "go-build", "system package"]


@dataclass(frozen=True, order=True)
class Request:
    """One executable at one exact version, such as ``Request("kube-proxy", "1.35.0")``."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Binary:
    """An executable that is there and was seen to report ``version``.

    ``toolchain`` is the Go release that built it (``go1.26.8``), read from the binary itself; empty for a
    program that is not written in Go.
    """

    name: str
    version: str
    path: Path
    source: BinarySource
    toolchain: str
    sha256: str

    def component(self) -> Component:
        """This binary as a result records it."""
        return Component(
            name=self.name,
            version=self.version,
            source=self.source,
            toolchain=self.toolchain,
            sha256=self.sha256,
        )
