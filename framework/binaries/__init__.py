"""Every executable by exact version, from wherever this machine can get it.

``Binaries().get("kube-proxy", "1.35.0")`` gives the path of a kube-proxy that was seen to report 1.35.0, with
its source, toolchain and digest for the result. ``pins.yaml`` beside this file is the one place for versions.
"""

from __future__ import annotations

from framework.binaries.errors import (
    BuildError,
    ChecksumError,
    DiskFullError,
    ExplicitPathError,
    GoTooOldError,
    NoSourceError,
    SkewError,
    UnknownVersionError,
    WrongVersionError,
)
from framework.binaries.events import (
    Building,
    Done,
    Downloading,
    Event,
    Failed,
    FellBack,
    Progress,
    Queued,
    Waiting,
    silent,
)
from framework.binaries.model import Binary, BinarySource, Request
from framework.binaries.pins import Pins, check_skew, load_pins
from framework.binaries.progress import show_progress
from framework.binaries.resolver import Binaries

__all__ = [
    "Binaries",
    "Binary",
    "BinarySource",
    "BuildError",
    "Building",
    "ChecksumError",
    "DiskFullError",
    "Done",
    "Downloading",
    "Event",
    "ExplicitPathError",
    "Failed",
    "FellBack",
    "GoTooOldError",
    "NoSourceError",
    "Pins",
    "Progress",
    "Queued",
    "Request",
    "SkewError",
    "UnknownVersionError",
    "Waiting",
    "WrongVersionError",
    "check_skew",
    "load_pins",
    "show_progress",
    "silent",
]
