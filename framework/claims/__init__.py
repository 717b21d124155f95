"""What others have stated, as data, and whether it is so: ``kilonode claims``."""

from framework.claims.ledger import ClaimsTable, judge_claims
from framework.claims.model import Claim, Claims, ClaimVerdict, Expected, Figure, judge_claim, load_claims

__all__ = [
    "Claim",
    "ClaimVerdict",
    "Claims",
    "ClaimsTable",
    "Expected",
    "Figure",
    "judge_claim",
    "judge_claims",
    "load_claims",
]
