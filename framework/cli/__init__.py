"""The few commands that are not a test run."""

from framework.cli import doctor, forecasts, machine, questions, reports, results
from framework.cli.app import (
    EXIT_AMBER,
    EXIT_BAD_INPUT,
    EXIT_BAD_NEWS,
    EXIT_FAILED,
    EXIT_MISSING,
    EXIT_UNKNOWN,
    app,
    exit_status,
    main,
)
from framework.cli.machine import NOT_HERE

__all__ = [
    "EXIT_AMBER",
    "EXIT_BAD_INPUT",
    "EXIT_BAD_NEWS",
    "EXIT_FAILED",
    "EXIT_MISSING",
    "EXIT_UNKNOWN",
    "NOT_HERE",
    "app",
    "doctor",
    "exit_status",
    "forecasts",
    "machine",
    "main",
    "questions",
    "reports",
    "results",
]
