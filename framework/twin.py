"""The transaction by which a real kube-proxy programs a Service, from a twin node.

A twin runs the same kube-proxy under the same Service as a node that is measured, without a tight limit, and
captures what kube-proxy hands to nft. The biggest transaction of the first programming is the load: where
slices come while kube-proxy works, it programs the Service in several, each of which holds all endpoints that
it knows by then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from framework import guard
from framework.analysis import Expectation
from framework.binaries import Binaries
from framework.lab import Lab, LabSettings
from framework.measurement import RealNode
from framework.report import Reporter, RunFolder
from framework.spec import RealNodeSpec

TWIN_MEMORY_SHARE: Final = 0.6
"""Of the memory that is available: too much to meet."""


def captured_load(
    kube_proxy: str, endpoints: int, target: Path, *, run_folder: RunFolder, reporter: Reporter, repro: str
) -> RealNode:
    ...
