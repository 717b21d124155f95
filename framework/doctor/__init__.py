"""Whether this machine can measure: asked by `kilonode doctor`, and by each run before it creates anything.

``look`` finds out, by trial where a look does not tell; ``examine`` says of each fact whether it is good, and
what to do if not; ``abilities`` what can be run as it is. Only ``look`` touches the machine, and it leaves
nothing on it: trials are in namespaces that end with them.
"""

from framework.doctor.checks import (
    Ability,
    Asked,
    Check,
    abilities,
    examine,
    keeps_from_measuring,
    require_machine,
)
from framework.doctor.facts import Facts, look

__all__ = [
    "Ability",
    "Asked",
    "Check",
    "Facts",
    "abilities",
    "examine",
    "keeps_from_measuring",
    "look",
    "require_machine",
]
