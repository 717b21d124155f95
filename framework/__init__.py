"""kilonode: what a Kubernetes node pays when its cluster grows to 100,000 nodes.

This is the whole public surface. Scenarios get fixtures from the pytest plugin (``fleet``, ``real_node``,
``daemonset_service``) and write what they expect with the names below.
"""

from framework.analysis import Expectation, VerdictError
from framework.errors import BadInputError, KilonodeError, MissingRequirementError, TimeLimitError
from framework.ladder import endpoints_ladder
from framework.measurement import Measurement, RealNode
from framework.outcome import Evidence, Outcome, RunResult, Verdict
from framework.report import load_run
from framework.spec import BallastPod
from framework.units import GIB, MIB

__all__ = [
    "GIB",
    "MIB",
    "BadInputError",
    "BallastPod",
    "Evidence",
    "Expectation",
    "KilonodeError",
    "Measurement",
    "MissingRequirementError",
    "Outcome",
    "RealNode",
    "RunResult",
    "TimeLimitError",
    "Verdict",
    "VerdictError",
    "endpoints_ladder",
    "load_run",
]
