"""Commands for others' eyes: bug reports that can be run again, and the nightly job."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from framework.analysis import measurement_label
from framework.answers import (
    PLANS,
    ReplayTable,
    plan_of,
    replay_measurement,
    replay_reproducer,
    replay_result,
    run_nightly,
    twin_of,
)
from framework.answers.bundling import asked_of_twin
from framework.answers.replay import REPLAY_FILE, asked_of_replay
from framework.binaries import Binaries
from framework.bundle import Machine, Redactor, pack, unpack
from framework.cli.app import (
    EXIT_BAD_NEWS,
    EXIT_FAILED,
    EXIT_UNKNOWN,
    RUNS,
    JsonFile,
    OneRun,
    app,
    plain_console,
    require_folder,
    run_folder,
)
from framework.command_lab import command_lab
from framework.errors import BadInputError
from framework.lab import LabSettings
from framework.outcome import RunResult
from framework.page import telling_order
from framework.report import RESULT_FILE, SESSION_FILE, load_measurement, load_session, slug
from framework.twin import TWIN_LAB
from framework.units import mib
from framework.versioned_file import write_versioned


@app.command("bundle")
def make_bundle(
    run: OneRun = "latest",
    measurement: Annotated[
        str,
        typer.Option(
            "--measurement",
            metavar="NAME",
            help="Which of the run's measurements, by its folder (default: what is no pass, or the largest).",
        ),
    ] = "",
    no_twin: Annotated[
        bool,
        typer.Option(
            "--no-twin", help="Without the ruleset and its reproducer, which take a twin node and root."
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where it goes (a .tar.gz).")
    ] = None,
) -> None:
    """Pack a measurement for a bug report.

    Use it to prove to maintainers what was measured: what was asked and found, logs, versions, and nft's
    input, which loads without Kubernetes. Secrets, host names, users and home folders are replaced; look into
    it before you send it. `kilonode replay` runs it again.

    \b
    Examples:
      kilonode bundle
      kilonode bundle latest --no-twin --output bug.tar.gz
    """
    folder = _measurement_folder(run_folder(run), measurement)
    result = load_measurement(folder)
    target = output or Path(f"kilonode-{result.run_id}-{slug(measurement_label(result))}.tar.gz")
    if not target.name.endswith(".tar.gz"):
        raise BadInputError(
            f"{target.name!r} is no name for a bundle", where="--output", remedy="let it end with .tar.gz"
        )
    require_folder(target)
    if not no_twin:
        asked_of_twin(result)
    session = load_session(folder.parent) if (folder.parent / SESSION_FILE).is_file() else None
    redactor = Redactor(Machine.this())
    console = plain_console()
    console.print(f"bundling {folder}", highlight=False, soft_wrap=True)
    if no_twin:
        manifest = pack(folder, session, None, output=target, redactor=redactor)
    else:
        with (
            tempfile.TemporaryDirectory(prefix="kilonode-twin-") as place,
            command_lab(
                Binaries(), _kube_proxies(result), TWIN_LAB, runs=RUNS, console=Console(stderr=True)
            ) as lab,
        ):
            twin = twin_of(lab, result, Path(place))
            manifest = pack(folder, session, twin, output=target, redactor=redactor)
    size = mib(target.stat().st_size)
    console.print(f"{target}: {len(manifest.files)} files, {size} MiB", highlight=False, soft_wrap=True)


def _kube_proxies(result: RunResult) -> list[str]:
    return [result.asked.node.kube_proxy] if result.asked is not None else []


def _measurement_folder(folder: Path, name: str) -> Path:
    """The folder of one measurement. Raises BadInputError where there is none of that name."""
    if (folder / RESULT_FILE).is_file():
        return folder.resolve()
    known = sorted(path.parent for path in folder.glob(f"*/{RESULT_FILE}"))
    if not known:
        raise BadInputError("there is no measurement here", where=str(folder), remedy="give another run")
    if not name:
        return min(known, key=lambda each: telling_order(load_measurement(each))).resolve()
    if folder / name not in known:
        names = ", ".join(each.name for each in known)
        raise BadInputError(
            f"there is no measurement {name!r}", where=str(folder), remedy=f"give one of {names}"
        )
    return (folder / name).resolve()


@app.command("replay")
def replay(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="What `kilonode bundle` made.")],
    reproducer_only: Annotated[
        bool, typer.Option("--reproducer-only", help="Run nft alone, without Kubernetes.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Run a bundle again, and print expected beside found.

    Use it on a bug report of somebody whom you trust: nft is fed the bundle's own transactions as root. First
    it loads them alone, in a fresh cgroup; then the whole measurement is made again.

    \b
    Examples:
      kilonode replay bug.tar.gz
      kilonode replay bug.tar.gz --reproducer-only --json answer.json

    Exit status: 0 where it comes out alike, 4 where it does not, 5 where nothing could be told.
    """
    errors = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="kilonode-replay-") as place:
        folder = unpack(bundle, Path(place))
        before = load_measurement(folder)
        if not reproducer_only:
            asked_of_replay(before)
        largest = max(_fleet(before), 1)
        settings = LabSettings(max_nodes=largest, cluster="embedded", mode="auto", keep=False)
        with command_lab(Binaries(), _kube_proxies(before), settings, runs=RUNS, console=errors) as lab:
            with lab.phase("programming", "the bundle's transactions on nft alone"):
                rows = replay_reproducer(folder, lab.ledger)
            again = None if reproducer_only else replay_measurement(lab, folder)
            answer = replay_result(folder, rows, again)
            write_versioned(lab.run_folder.path / REPLAY_FILE, answer)
    if json_file is not None:
        write_versioned(json_file, answer)
    plain_console().print(ReplayTable(answer))
    if answer.reproduced is None:
        raise typer.Exit(EXIT_UNKNOWN)
    if not answer.reproduced:
        raise typer.Exit(EXIT_BAD_NEWS)


def _fleet(result: RunResult) -> int:
    """Fake nodes that a replay may need."""
    asked = result.asked
    if asked is None:
        return 1
    endpoints = asked.service.endpoints if asked.service is not None else 0
    return max(asked.fleet_nodes, endpoints)


@app.command("nightly")
def nightly(
    scenarios: Annotated[
        list[str] | None, typer.Argument(metavar="[SCENARIOS]...", help="Files or folders of scenarios.")
    ] = None,
    size: Annotated[
        str,
        typer.Option(
            "--size",
            metavar="PLAN",
            help="; ".join(
                f"{name}: {plan.what}, {mib(plan.memory_bytes)} MiB" for name, plan in PLANS.items()
            ),
            autocompletion=lambda: list(PLANS),
        ),
    ] = "standard",
    history: Annotated[
        Path, typer.Option("--history", metavar="DIR", help="Where earlier nights are kept.")
    ] = Path("history"),
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where this night's files go.")
    ] = Path("nightly"),
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="OPTION", help="One more option for pytest; may be repeated."),
    ] = None,
) -> None:
    """Measure, and compare with the last nights of this machine.

    Use it from cron or CI. The first line that it prints is the reason of its status; nightly.json,
    summary.md, junit.xml and perfdata.json are written, and the history is kept. pytest's output goes to
    standard error.

    \b
    Examples:
      kilonode nightly
      kilonode nightly my_scenarios --size large --option=--kube-proxy=1.36.1

    Exit status: 0 if all is well, 1 where a measurement is no pass, 4 where something got worse.
    """
    night = run_nightly(
        plan_of(size),
        scenarios=scenarios or ["scenarios"],
        options=option or (),
        runs=RUNS,
        history=history,
        output=output,
    )
    print(night.reason)
    print(f"{output}/summary.md, {output}/junit.xml; the run: {RUNS / night.run if night.run else 'none'}")
    if not night.passed:
        worse = night.comparison is not None and night.reason.startswith("WORSE")
        raise typer.Exit(EXIT_BAD_NEWS if worse else EXIT_FAILED)
