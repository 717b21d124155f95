"""The ledger: every claim, judged for each kube-proxy version that was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from framework.claims.measures import measured
from framework.claims.model import Claim, Claims, ClaimVerdict, judge_claim
from framework.outcome import RunResult
from framework.spec import version_order
from framework.stages import StagesRun

_STYLES: Final = {"confirmed": "green", "refuted": "bold red", "not measured": "dim"}


def judge_claims(
    claims: Claims, results: Sequence[RunResult], stages: Sequence[StagesRun] = ()
) -> tuple[ClaimVerdict, ...]:
    """A verdict for each claim and each kube-proxy version that was measured, oldest version first.

    ``stages`` are profiles of nft; those of a transaction of unknown origin are passed over.
    """
    measured_versions = {str(result.parameters.get("kube_proxy")) for result in results}
    profiled_versions = {run.kube_proxy for run in stages if run.kube_proxy is not None}
    return tuple(
        _judge(
            claim,
            version,
            [result for result in results if result.parameters.get("kube_proxy") == version],
            [run for run in stages if run.kube_proxy == version],
        )
        for claim in claims.claims
        for version in sorted(measured_versions | profiled_versions, key=version_order)
    )


def _judge(
    claim: Claim, version: str, results: Sequence[RunResult], stages: Sequence[StagesRun]
) -> ClaimVerdict:
    found = measured(claim, results, stages)
    if isinstance(found, str):
        return judge_claim(claim, version, None, found)
    return judge_claim(claim, version, found, "")


@dataclass(frozen=True)
class ClaimsTable:
    """A rich renderable of the ledger, a column for each version; why something was not measured below it."""

    claims: Claims
    verdicts: Sequence[ClaimVerdict]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del options
        versions = list(dict.fromkeys(verdict.kube_proxy for verdict in self.verdicts))
        by_key = {(verdict.claim, verdict.kube_proxy): verdict for verdict in self.verdicts}
        table = Table(box=box.ROUNDED if console.is_terminal else box.ASCII)
        table.add_column("claim", ratio=2)
        for version in versions:
            table.add_column(f"kube-proxy {version}", ratio=1)
        for claim in self.claims.claims:
            cells = [_cell(by_key[claim.id, version]) for version in versions]
            table.add_row(claim.says, *cells)
        yield Text(self.claims.source, "bold")
        yield table
        reasons: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for verdict in self.verdicts:
            if verdict.why:
                reasons[verdict.why][verdict.claim] = None
        for why, names in reasons.items():
            yield Text(f"not measured: {why}: {', '.join(names)}", "dim")
        for claim in self.claims.claims:
            if claim.note:
                yield Text(f"{claim.id}: {claim.note}", "dim")


def _cell(verdict: ClaimVerdict) -> Text:
    cell = Text(verdict.judgement, _STYLES[verdict.judgement])
    if verdict.figure is not None:
        cell.append(f"\n{verdict.figure.text}", "default not bold")
    return cell
