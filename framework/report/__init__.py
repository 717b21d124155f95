"""Where results go: run folders, the terminal, and the live view of a run."""

from framework.report.comparison_table import ComparisonTable, finding_line
from framework.report.history import keep, last_alike
from framework.report.perf_data import PerfData, perf_data
from framework.report.phases import PhaseDisplay, PhaseName, Reporter
from framework.report.run_folder import (
    FORMAT,
    LATEST,
    RESULT_FILE,
    SESSION_FILE,
    MeasurementFolder,
    RunFolder,
    Session,
    load_measurement,
    load_run,
    load_session,
    slug,
)
from framework.report.side_by_side import Cell, SideBySide, compared
from framework.report.steps import StepDisplay
from framework.report.terminal import ResultsTable, Row, basis_lines, machine_lines, reason_lines, row_of
from framework.report.who_dies import asks_who_dies, victims_counted

__all__ = [
    "FORMAT",
    "LATEST",
    "RESULT_FILE",
    "SESSION_FILE",
    "Cell",
    "ComparisonTable",
    "MeasurementFolder",
    "PerfData",
    "PhaseDisplay",
    "PhaseName",
    "Reporter",
    "ResultsTable",
    "Row",
    "RunFolder",
    "Session",
    "SideBySide",
    "StepDisplay",
    "asks_who_dies",
    "basis_lines",
    "compared",
    "finding_line",
    "keep",
    "last_alike",
    "load_measurement",
    "load_run",
    "load_session",
    "machine_lines",
    "perf_data",
    "reason_lines",
    "row_of",
    "slug",
    "victims_counted",
]
