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
from framework.report.side_by_side import Cell, SideBySide, compared
from framework.report.steps import StepDisplay
from framework.report.terminal import ResultsTable, Row, reason_lines, row_of

__all__ = [
    "FORMAT",
    "Cell",
    "MeasurementFolder",
    "PhaseDisplay",
    "PhaseName",
    "Reporter",
    "ResultsTable",
    "Row",
    "RunFolder",
    "Session",
    "SideBySide",
    "StepDisplay",
    "compared",
    "load_run",
    "load_session",
    "reason_lines",
    "row_of",
    "slug",
]
