"""A claim, and how a figure is judged by it: pure data and pure functions."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

import msgspec
import yaml

from framework.errors import BadInputError
from framework.outcome import Bound, Record
from framework.spec import Spec

Judgement = Literal["confirmed", "refuted", "not measured"]


class Expected(Spec, frozen=True, kw_only=True, rename={"from_": "from"}):
    """What a claim says: ``about`` a value, ``from`` one ``to`` another, ``at_least`` or ``below`` one."""

    about: float | None = None
    from_: float | None = None
    to: float | None = None
    at_least: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        given = {name for name in self.__struct_fields__ if getattr(self, name) is not None}
        if given not in ({"about"}, {"from_", "to"}, {"at_least"}, {"below"}):
            raise BadInputError(
                f"a claim expects {', '.join(sorted(given)) or 'nothing'}",
                where="claims.yaml",
                remedy="give about, from and to, at_least, or below",
            )

    def bounds(self, tolerance: float) -> tuple[float, float]:
        """The lowest and the highest value that confirm it."""
        if self.at_least is not None:
            return self.at_least, float("inf")
        if self.below is not None:
            return float("-inf"), self.below
        low = self.about if self.from_ is None else self.from_
        high = self.about if self.to is None else self.to
        assert low is not None  # noqa: S101 - __post_init__ says so
        assert high is not None  # noqa: S101
        return low * (1 - tolerance), high * (1 + tolerance)


class Claim(Spec, frozen=True, kw_only=True):
    """One statement. ``measure`` names a figure of ``framework.claims.measures``."""

    id: str
    says: str
    measure: str
    expected: Expected
    endpoints: int | None = None
    tolerance: float = 0.0
    note: str = ""


class Claims(Spec, frozen=True, kw_only=True):
    """All statements of one source."""

    source: str
    claims: tuple[Claim, ...]


class Figure(Record, frozen=True, kw_only=True):
    """What was measured for a claim; ``text`` is for people."""

    value: float
    bound: Bound
    text: str


class ClaimVerdict(Record, frozen=True, kw_only=True):
    """A claim judged for one kube-proxy. ``why`` says why it was not measured."""

    claim: str
    kube_proxy: str
    judgement: Judgement
    figure: Figure | None
    why: str = ""


@cache
def load_claims() -> Claims:
    """The project's claims. Raises BadInputError for a file that is damaged."""
    text = files("framework.claims").joinpath("claims.yaml").read_text()
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return msgspec.convert(yaml.load(text, Loader=loader), Claims, strict=False)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise BadInputError(
            f"the claims can't be read: {error}", where="claims.yaml", remedy="correct it"
        ) from error


def judge_claim(claim: Claim, kube_proxy: str, figure: Figure | None, why: str) -> ClaimVerdict:
    """Confirmed where the figure lies in the claim's bounds; a lower bound below them says nothing."""
    if figure is None:
        return ClaimVerdict(
            claim=claim.id, kube_proxy=kube_proxy, judgement="not measured", figure=None, why=why
        )
    low, high = claim.expected.bounds(claim.tolerance)
    judgement: Judgement = (
        "confirmed" if low <= figure.value and _below(figure.value, high, claim) else "refuted"
    )
    if figure.bound == "lower" and (figure.value < low or (judgement == "confirmed" and high != _INFINITE)):
        return ClaimVerdict(
            claim=claim.id,
            kube_proxy=kube_proxy,
            judgement="not measured",
            figure=figure,
            why="only a lower bound was seen",
        )
    return ClaimVerdict(claim=claim.id, kube_proxy=kube_proxy, judgement=judgement, figure=figure)


_INFINITE: Final = float("inf")


def _below(value: float, high: float, claim: Claim) -> bool:
    return value < high if claim.expected.below is not None else value <= high
