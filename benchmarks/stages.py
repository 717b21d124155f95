"""nft's stages as Markdown: ``python -m benchmarks.stages docs/stages.json``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from framework.claims import judge_claims, load_claims
from framework.stages import StagesRun, growth, load_stages, stage_rows
from framework.stages.table import describe_versions, title

STAGE_CLAIMS: Final = ("ast", "c-structs", "netlink")


def figures_table(runs: Sequence[StagesRun]) -> str:
    """Markdown: when and of what, then every figure of every load."""
    day = min(run.made_utc for run in runs)[:10]
    versions = "; ".join(dict.fromkeys(describe_versions(run) for run in runs))
    lines = [f"Recorded on {day}: {versions}.", ""]
    lines += ["| MiB | " + " | ".join(title(run) for run in runs) + " |", "|---" * (len(runs) + 1) + "|"]
    lines += [f"| {row.label} | {' | '.join(row.cells)} |" for row in stage_rows(runs)]
    return "\n".join(lines)


def growth_table(runs: Sequence[StagesRun]) -> str:
    """Markdown: what each endpoint adds from one size to the next."""
    lines = [
        "| kube-proxy | endpoints | text | tree and cache | heap | RSS peak | kernel |",
        "|---|---|---|---|---|---|---|",
    ]
    for step in growth(runs):
        each = " | ".join(
            f"{size_bytes:,.0f} B"
            for size_bytes in (
                step.transaction_bytes,
                step.tree_bytes,
                step.heap_bytes,
                step.rss_bytes,
                step.kernel_bytes,
            )
        )
        lines.append(f"| {step.kube_proxy} | {step.endpoints_from:,} to {step.endpoints_to:,} | {each} |")
    return "\n".join(lines)


def claims_table(runs: Sequence[StagesRun]) -> str:
    """Markdown: what the figures say of each claim about a stage."""
    claims = load_claims()
    says = {claim.id: claim.says for claim in claims.claims}
    lines = ["| claim | kube-proxy | | measured |", "|---|---|---|---|"]
    for verdict in judge_claims(claims, [], runs):
        if verdict.claim in STAGE_CLAIMS:
            measured = verdict.figure.text if verdict.figure is not None else verdict.why
            lines.append(
                f"| {says[verdict.claim]} | {verdict.kube_proxy} | **{verdict.judgement}** | {measured} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    found = load_stages(Path(sys.argv[1])).runs
    print("\n\n".join([figures_table(found), growth_table(found), claims_table(found)]))
