"""Where results go: run folders, the terminal, and the live view of a run."""

from framework.report.phases import PhaseDisplay, PhaseName, Reporter
from framework.report.run_folder import (
    FORMAT,
    MeasurementFolder,
    RunFolder,
    Session,
    load_run,
    load_session,
    slug,
)
from framework.report.terminal import ResultsTable, Row, row_of

__all__ = [
    "FORMAT",
    "MeasurementFolder",
    "PhaseDisplay",
    "PhaseName",
    "Reporter",
    "ResultsTable",
    "Row",
    "RunFolder",
    "Session",
    "load_run",
    "load_session",
    "row_of",
    "slug",
]
