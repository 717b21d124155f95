"""What people come with questions for: each a command, a typed answer and an exit status."""

from framework.answers.bundling import twin_of
from framework.answers.forecast import (
    FORECAST_FILE,
    Check,
    ForecastAsked,
    ForecastResult,
    load_forecast,
    make_forecast,
    shipped_forecasts,
)
from framework.answers.forecast_table import ForecastTable, describe_endurance, distrust_lines
from framework.answers.limit import LIMIT_FILE, LimitAsked, LimitResult, find_limit, load_limit
from framework.answers.limit_table import LimitTable, trial_line
from framework.answers.live import ClusterCounts, LiveWarning, read_counts, warn
from framework.answers.live_table import LiveTable
from framework.answers.nightly import PLANS, NightlyResult, judge_night, plan_of, run_nightly
from framework.answers.replay import (
    ReplayResult,
    peaks_agree,
    replay_measurement,
    replay_reproducer,
    replay_result,
)
from framework.answers.replay_table import ReplayTable

__all__ = [
    "FORECAST_FILE",
    "LIMIT_FILE",
    "PLANS",
    "Check",
    "ClusterCounts",
    "ForecastAsked",
    "ForecastResult",
    "ForecastTable",
    "LimitAsked",
    "LimitResult",
    "LimitTable",
    "LiveTable",
    "LiveWarning",
    "NightlyResult",
    "ReplayResult",
    "ReplayTable",
    "describe_endurance",
    "distrust_lines",
    "find_limit",
    "judge_night",
    "load_forecast",
    "load_limit",
    "make_forecast",
    "peaks_agree",
    "plan_of",
    "read_counts",
    "replay_measurement",
    "replay_reproducer",
    "replay_result",
    "run_nightly",
    "shipped_forecasts",
    "trial_line",
    "twin_of",
    "warn",
]
