"""Earlier runs of the same machine: what a run is compared with, kept small, and not for ever.

A history is a folder of run folders without evidence and logs: their results say what is compared. So any
folder of runs can serve as one.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from framework.analysis.comparison import fingerprint
from framework.errors import BadInputError
from framework.outcome import RunResult
from framework.report.run_folder import LATEST, RESULT_FILE, SESSION_FILE, load_run


def last_alike(
    history: Path, run: Sequence[RunResult], *, at_most: int, apart_from: Path
) -> tuple[tuple[RunResult, ...], ...]:
    """The last runs in ``history`` that the machine of ``run`` made, oldest first.

    ``apart_from`` is the run's own folder, which may be among them. Runs that can't be read are passed over.
    Raises BadInputError where there is no such folder, or ``at_most`` is less than 1.
    """
    if at_most < 1:
        raise BadInputError(f"a baseline of {at_most} runs is none", where="--last", remedy="give 1 or more")
    if not history.is_dir():
        raise BadInputError(
            "there is no such folder of runs", where=str(history), remedy="give the folder that holds them"
        )
    machines = {fingerprint(result.environment) for result in run}
    found: list[tuple[RunResult, ...]] = []
    for folder in sorted(_folders(history), key=lambda each: each.name, reverse=True):
        if folder.resolve() == apart_from.resolve():
            continue
        try:
            results = load_run(folder)
        except BadInputError:
            continue
        if results and {fingerprint(result.environment) for result in results} <= machines:
            found.append(results)
        if len(found) == at_most:
            break
    return tuple(reversed(found))


def keep(history: Path, run: Path, *, at_most: int) -> Path:
    """Copy the results of ``run`` into ``history``, and remove the oldest beyond ``at_most`` runs.

    A history that is the folder of ``run`` itself is left as it is.
    """
    place = history / run.resolve().name
    if place.resolve() == run.resolve():
        return place
    for file in (*run.glob(f"*/{RESULT_FILE}"), *run.glob(SESSION_FILE)):
        copy = place / file.relative_to(run)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    for old in sorted(_folders(history), key=lambda each: each.name)[:-at_most]:
        shutil.rmtree(old)
    return place


def _folders(history: Path) -> Sequence[Path]:
    """Of runs; their names begin with the time."""
    return [
        folder
        for folder in history.iterdir()
        if folder.is_dir() and folder.name != LATEST and (folder / SESSION_FILE).is_file()
    ]
