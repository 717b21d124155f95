"""Commands that read what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framework.analysis.comparison import compare
from framework.claims import ClaimsTable, judge_claims, load_claims
from framework.cli.app import (
    EXIT_BAD_NEWS,
    EXIT_UNKNOWN,
    JsonFile,
    OneRun,
    SomeRuns,
    app,
    plain_console,
    run_folder,
    run_names,
)
from framework.errors import BadInputError
from framework.page import markdown, report, write_report
from framework.report import (
    SESSION_FILE,
    ComparisonTable,
    ResultsTable,
    SideBySide,
    last_alike,
    load_run,
    load_session,
)
from framework.stages import load_stages
from framework.versioned_file import write_versioned


@app.command()
def show(
    runs: SomeRuns = None,
) -> None:
    """Show the results of a run again, or of several.

    Use it to see the table that ended a run, which is the last one unless RUN says which. Several are put
    side by side: runs on several kinds of cluster (`--cluster`) are compared cell by cell, and nft's peak has
    to be the same.

    \b
    Examples:
      kilonode show
      kilonode show 20261127T045830Z-f060c2 20261127T101500Z-0b1c2d
    """
    folders = [run_folder(run) for run in runs or ["latest"]]
    if len(folders) == 1:
        plain_console().print(ResultsTable(load_run(folders[0]), folders[0].resolve()))
    else:
        plain_console().print(SideBySide([result for folder in folders for result in load_run(folder)]))


@app.command("claims")
def list_claims(
    runs: SomeRuns = None,
    stages: Annotated[
        list[Path] | None,
        typer.Option(
            "--stages", metavar="FILE", help="What `kilonode stages --json` wrote; may be repeated."
        ),
    ] = None,
) -> None:
    """Judge what an article stated by what was measured.

    Use it to see what your own measurements say of each: confirmed, refuted, or not measured. The statements
    are those of an article about nftables at 100,000 nodes, with the conditions under which each is judged.
    All of them take `pytest -k scenario --max-nodes 100k` and `kilonode stages`; without RUN the last run is
    read.

    \b
    Examples:
      kilonode claims
      kilonode claims latest --stages stages.json
    """
    profiled = [run for path in stages or [] for run in load_stages(path).runs]
    results = [result for run in runs or ["latest"] for result in load_run(run_folder(run))]
    claims = load_claims()
    plain_console().print(ClaimsTable(claims, judge_claims(claims, results, profiled)))


@app.command("compare")
def compare_runs(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[A] B", help="Runs' folders, or their names in runs/.", autocompletion=run_names
        ),
    ],
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="DIR",
            help="Compare B with the last runs of the same machine in this folder of runs, without A.",
        ),
    ] = None,
    last: Annotated[int, typer.Option("--last", metavar="N", help="How many of them at most.")] = 5,
    json_file: JsonFile = None,
) -> None:
    """Say what got worse from run A to run B.

    Use it after a change of kube-proxy, nft or the kernel. Compared are outcomes, memory, rules and, on one
    machine, times. A change counts only beyond a relative and an absolute threshold, and beyond what the runs
    of a baseline differ by among each other.

    \b
    Examples:
      kilonode compare 20261127T045830Z-f060c2 latest
      kilonode compare --baseline history latest

    Exit status: 0 if nothing got worse, 4 if something did, 5 if nothing could be compared.
    """
    wanted = 2 if baseline is None else 1
    if len(runs) != wanted:
        raise BadInputError(
            f"{len(runs)} runs were given",
            where="RUN",
            remedy="give two runs, or --baseline DIR and one",
        )
    run = load_run(run_folder(runs[-1]))
    before = (
        [load_run(run_folder(runs[0]))]
        if baseline is None
        else last_alike(baseline, run, at_most=last, apart_from=run_folder(runs[-1]))
    )
    comparison = compare(before, run)
    if json_file is not None:
        write_versioned(json_file, comparison)
    plain_console().print(ComparisonTable(comparison))
    if comparison.finding == "worse":
        raise typer.Exit(EXIT_BAD_NEWS)
    if comparison.finding == "nothing_compared":
        raise typer.Exit(EXIT_UNKNOWN)


@app.command("report")
def make_report(
    run: OneRun = "latest",
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print it as Markdown instead, for an issue or a comment.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where the page goes.")
    ] = None,
) -> None:
    """Make a page of a run, to look at or to send.

    Use it to give results to somebody: verdicts, nft's memory by endpoints, node memory over time, who dies,
    versions. One HTML file that needs no network and no script. A run that pytest ended has one already.

    \b
    Examples:
      kilonode report
      kilonode report latest --markdown
    """
    folder = run_folder(run)
    results = load_run(folder)
    if not results:
        raise BadInputError("nothing was measured in this run", where=str(folder), remedy="give another run")
    session = load_session(folder) if (folder / SESSION_FILE).is_file() else None
    if as_markdown and output is not None:
        raise BadInputError("Markdown is printed", where="--output", remedy="send it there with >")
    if as_markdown:
        print(markdown(report(results, session, load_claims())), end="")
        return
    page = write_report(folder, results, session, output=output)
    plain_console().print(f"Report: {page}", highlight=False, soft_wrap=True)
