"""A lab for as long as something measures, be it a pytest session or one command: made ready, and removed.

Nothing is created before the machine was looked at, and nothing of a run stays behind its end: what would end
the program meanwhile lets it clean up, and cleaning up is not interrupted by the first that tries.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from framework.binaries import Binaries, Request, show_progress
from framework.doctor import require_machine
from framework.errors import KilonodeError
from framework.lab import Lab, LabSettings
from framework.ledger import state_root
from framework.log import get_logger
from framework.report import PhaseDisplay, RunFolder
from framework.report.phases import Reporter
from framework.signals import ended_as_by_ctrl_c, removing

log = get_logger(__name__)


@contextmanager
def command_lab(
    binaries: Binaries,
    kube_proxies: Sequence[str],
    settings: LabSettings,
    *,
    runs: Path,
    console: Console,
) -> Iterator[Lab]:
    """A lab on an embedded control plane for one command, whose phases are shown on ``console``.

    Raises as ``open_lab``.
    """
    with (
        PhaseDisplay(console) as display,
        open_lab(
            settings,
            [*binaries.defaults(), *(binaries.request("kube-proxy", v) for v in kube_proxies)],
            binaries=binaries,
            runs=runs,
            command=["kilonode", *sys.argv[1:]],
            console=console,
            reporter=display,
        ) as lab,
    ):
        yield lab


@contextmanager
def open_lab(
    settings: LabSettings,
    wanted: Sequence[Request],
    *,
    binaries: Binaries,
    runs: Path,
    command: Sequence[str],
    console: Console,
    reporter: Reporter,
) -> Iterator[Lab]:
    """A lab with a run folder of its own below ``runs``, and the ``wanted`` executables at hand.

    Nothing is started before the first use. Raises BadInputError for a state folder that can't be one,
    MissingRequirementError where this machine can't measure, and KilonodeError at the end where something
    could not be removed.
    """
    state_root()
    if settings.existing is None:
        require_machine(runs)
    with ended_as_by_ctrl_c():
        with show_progress(console) as progress:
            binaries.ensure_all(list(dict.fromkeys(wanted)), progress=progress)
        run_folder = RunFolder.create(runs, command=command)
        lab = Lab(settings, binaries=binaries, run_folder=run_folder, reporter=reporter)
        try:
            yield lab
        except Exception as error:
            lost = lab.lost_cluster()
            if lost is None:
                raise
            raise lost from error
        finally:
            left = _closed(lab, run_folder, _say_on(console))
        if left:
            raise KilonodeError(f"left behind: {'; '.join(left)}", remedy="run `kilonode clean`")


def _closed(lab: Lab, run_folder: RunFolder, say: Callable[[str], None]) -> tuple[str, ...]:
    with removing(say):
        try:
            left = lab.close()
        except KeyboardInterrupt:
            say("the rest is left to `kilonode clean`")
            return ()
        try:
            run_folder.end()
        except KilonodeError as error:
            log.warning("the run folder does not tell of the end: %s", error)
    return left


def _say_on(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
