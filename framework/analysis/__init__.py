"""From evidence to outcomes to verdicts: pure functions, no cluster needed."""

from framework.analysis.fates import BAD_FATES, CAUSE_WORDS, failure_order, sync_failure_cause, timeline
from framework.analysis.fidelity import RunFacts, deviations, refusals
from framework.analysis.outcomes import derive_outcome
from framework.analysis.reading import TRAFFIC_BEFORE_S
from framework.analysis.table import (
    PHASE_WORDS,
    ballast_beside,
    bounded_mib,
    describe_ballast,
    describe_measure,
    describe_outcome,
    describe_ready,
    describe_scores,
    measurement_label,
    outcome_rows,
    render_rows,
)
from framework.analysis.traffic import traffic
from framework.analysis.verdicts import Expectation, VerdictError, expect, judge

__all__ = [
    "BAD_FATES",
    "CAUSE_WORDS",
    "PHASE_WORDS",
    "TRAFFIC_BEFORE_S",
    "Expectation",
    "RunFacts",
    "VerdictError",
    "ballast_beside",
    "bounded_mib",
    "derive_outcome",
    "describe_ballast",
    "describe_measure",
    "describe_outcome",
    "describe_ready",
    "describe_scores",
    "deviations",
    "expect",
    "failure_order",
    "judge",
    "measurement_label",
    "outcome_rows",
    "refusals",
    "render_rows",
    "sync_failure_cause",
    "timeline",
    "traffic",
]
