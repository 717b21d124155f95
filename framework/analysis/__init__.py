"""From evidence to outcomes to verdicts: pure functions, no cluster needed."""

from framework.analysis.fidelity import OOM_SCORES_PRODUCTION, RunFacts, deviations, refusals
from framework.analysis.outcomes import derive_outcome
from framework.analysis.table import (
    bounded_mib,
    describe_measure,
    describe_outcome,
    outcome_rows,
    render_rows,
)
from framework.analysis.verdicts import Expectation, VerdictError, expect, judge

__all__ = [
    "OOM_SCORES_PRODUCTION",
    "Expectation",
    "RunFacts",
    "VerdictError",
    "bounded_mib",
    "derive_outcome",
    "describe_measure",
    "describe_outcome",
    "deviations",
    "expect",
    "judge",
    "outcome_rows",
    "refusals",
    "render_rows",
]
