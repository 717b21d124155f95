"""A control plane for one command that measures: made ready, shown while it works, removed at its end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from framework.binaries import Binaries, show_progress
from framework.errors import KilonodeError
from framework.lab import Lab, LabSettings
from framework.preflight import require_machine
from framework.report import PhaseDisplay, RunFolder
from framework.signals import ended_as_by_ctrl_c, ignore_deadly_signals


@contextmanager
def command_lab(
    binaries: Binaries,
    kube_proxies: Sequence[str],
    settings: LabSettings,
    *,
    runs: Path,
    console: Console,
) -> Iterator[Lab]:
    """A lab on an embedded control plane with a run folder of its own below ``runs``.

    Nothing is started before the first use. Raises MissingRequirementError where this machine can't measure,
    and KilonodeError at the end where something could not be removed.
    """
    require_machine()
    with ended_as_by_ctrl_c(), PhaseDisplay(console) as display:
        wanted = [*binaries.defaults(), *(binaries.request("kube-proxy", v) for v in kube_proxies)]
        with show_progress(console) as progress:
            binaries.ensure_all(list(dict.fromkeys(wanted)), progress=progress)
        run_folder = RunFolder.create(runs, command=["kilonode", *sys.argv[1:]])
        lab = Lab(settings, binaries=binaries, run_folder=run_folder, reporter=display)
        try:
            yield lab
        finally:
            ignore_deadly_signals()
            left = lab.close()
            run_folder.end()
        if left:
            raise KilonodeError(f"left behind: {'; '.join(left)}", remedy="run `kilonode clean`")
