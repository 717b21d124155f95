"""The command that looks ahead: of clusters to come, and of one that runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console

from framework.analysis.forecast import Load, Model, colour, needed, unreclaimable
from framework.answers import (
    ForecastAsked,
    ForecastResult,
    ForecastTable,
    LiveTable,
    load_forecast,
    make_forecast,
    read_counts,
    shipped_forecasts,
    warn,
)
from framework.binaries import Binaries
from framework.cli.app import (
    EXIT_AMBER,
    EXIT_BAD_NEWS,
    EXIT_UNKNOWN,
    RUNS,
    JsonFile,
    KubeProxies,
    app,
    plain_console,
    refuse_beside,
)
from framework.cluster import ExistingSettings
from framework.command_lab import command_lab
from framework.errors import BadInputError
from framework.profiles import parse_ballast, unreclaimable_bytes
from framework.spec import require_count, require_version
from framework.twin import TWIN_LAB
from framework.units import parse_bytes, parse_count
from framework.versioned_file import write_versioned

DEFAULT_MEMORIES: Final = ("1GiB", "2GiB", "4GiB")
LIVE_BALLAST: Final = "ordinary"


@app.command("forecast")
def forecast(
    command: typer.Context,
    *,
    endpoints: Annotated[
        str, typer.Option("--endpoints", metavar="N", help="The size that is predicted.")
    ] = "100k",
    kube_proxies: KubeProxies = None,
    up_to: Annotated[
        str, typer.Option("--up-to", metavar="N", help="The largest size that is measured for it.")
    ] = "5k",
    memory: Annotated[
        list[str] | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="A node's memory; may be repeated. If given, a node that is expected to die is status 4.",
        ),
    ] = None,
    ballast: Annotated[
        str,
        typer.Option(
            "--ballast",
            metavar="SIZE",
            help="What else runs on the node: a size, or a profile (default: 0; with --live: ordinary).",
        ),
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Measure the predicted size too, and say how far off it was.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="FILE", help="Measure nothing: take what --json wrote before."),
    ] = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Read a running cluster, and warn of its nodes; nothing is written."),
    ] = False,
    kubeconfig: Annotated[
        str, typer.Option("--kubeconfig", metavar="FILE", help="With --live: the cluster's kubeconfig.")
    ] = "",
    context: Annotated[
        str,
        typer.Option("--context", metavar="NAME", help="With --live: its context, never taken by itself."),
    ] = "",
    json_file: JsonFile = None,
) -> None:
    """Predict what a node takes in a larger cluster.

    Use it before a cluster grows: it says what a node takes, and at how many endpoints it dies. Small sizes
    are measured with the real programs, in under two minutes; lines through them say what 100,000 endpoints
    take, with an interval, or that they say too little. With --live a running cluster is read instead, and
    judged by models that come with kilonode or by --model.

    \b
    Examples:
      kilonode forecast --kube-proxy 1.36.1 --memory 2GiB --ballast ordinary
      kilonode forecast --live --kubeconfig ~/.kube/config --context production

    Exit status: 0 with an answer, 4 where a node of --memory is expected to die, 5 where the answer is not to
    be trusted. With --live: 0 green, 6 amber, 4 red, 5 unknown.
    """
    ballast_bytes = unreclaimable_bytes(parse_ballast(ballast or (LIVE_BALLAST if live else "0")))
    versions = [require_version(version, where="--kube-proxy") for version in kube_proxies or ()]
    if model is not None:
        refuse_beside(command, "--model", ("--up-to", "--check"), why="nothing is measured")
    if live:
        refuse_beside(command, "--live", ("--up-to", "--check"), why="nothing is measured")
        refuse_beside(
            command,
            "--live",
            ("--endpoints", "--memory"),
            why="the cluster and its nodes say it",
        )
        settings = ExistingSettings(kubeconfig=kubeconfig, context=context)
        _live(settings, versions, model, ballast_bytes, json_file)
        return
    if kubeconfig or context:
        raise BadInputError(
            "a kubeconfig is for a running cluster", where="--kubeconfig", remedy="give --live too"
        )
    memories = [parse_bytes(each, where="--memory") for each in memory or DEFAULT_MEMORIES]
    target = require_count(parse_count(endpoints, where="--endpoints"), where="--endpoints")
    if model is not None:
        result = _chosen(load_forecast(model), versions, target)
    else:
        result = _measured(versions, target, parse_count(up_to, where="--up-to"), check=check)
    if json_file is not None:
        write_versioned(json_file, result)
    plain_console().print(ForecastTable(result, memories, ballast_bytes, ballast or "none"))
    _exit_by(result.models, target, memories if memory else (), ballast_bytes)


def _measured(kube_proxies: Sequence[str], target: int, high: int, *, check: bool) -> ForecastResult:
    binaries = Binaries()
    versions = kube_proxies or binaries.default_kube_proxies()
    for version in versions:
        binaries.check_skew(version)
    asked = ForecastAsked(kube_proxies=tuple(versions), target=target, endpoints_high=high, check=check)
    errors = Console(stderr=True)
    with command_lab(binaries, asked.kube_proxies, TWIN_LAB, runs=RUNS, console=errors) as lab:
        return make_forecast(lab, asked)


def _chosen(found: ForecastResult, kube_proxies: Sequence[str], target: int) -> ForecastResult:
    """``found`` for other questions: of these kube-proxies, at ``target``."""
    known = [each.kube_proxy for each in found.models]
    for version in kube_proxies:
        if version not in known:
            raise BadInputError(
                f"there is no model of kube-proxy {version}",
                where="--model",
                remedy=f"give one of {', '.join(known)}",
            )
    wanted = kube_proxies or known
    checks = found.checks if found.target == target else ()
    return msgspec.structs.replace(
        found,
        target=target,
        models=tuple(each for each in found.models if each.kube_proxy in wanted),
        checks=tuple(each for each in checks if each.kube_proxy in wanted),
    )


def _exit_by(models: Sequence[Model], target: int, memories: Sequence[int], ballast_bytes: int) -> None:
    """Status 4 where a node of a size that was asked for dies, 5 where nothing can be relied on."""
    load = Load(endpoints=target, service_ports=1)
    found = {
        colour(each, load, memory_bytes=memory_bytes, ballast_bytes=ballast_bytes)
        for each in models
        for memory_bytes in memories
    }
    if "red" in found:
        raise typer.Exit(EXIT_BAD_NEWS)
    memory_needed = [need(each, load) for each in models for need in (needed, unreclaimable)]
    if any(need is None or need.distrust for need in memory_needed):
        raise typer.Exit(EXIT_UNKNOWN)


def _live(
    settings: ExistingSettings,
    versions: Sequence[str],
    model: Path | None,
    ballast_bytes: int,
    json_file: Path | None,
) -> None:
    if len(versions) > 1:
        raise BadInputError(
            "a cluster's nodes are judged by one kube-proxy", where="--kube-proxy", remedy="give one"
        )
    answers = (load_forecast(model),) if model is not None else shipped_forecasts()
    models = [each for answer in answers for each in answer.models]
    warning = warn(
        read_counts(settings),
        models,
        kube_proxy=versions[0] if versions else "",
        ballast_bytes=ballast_bytes,
        context=settings.context,
    )
    if json_file is not None:
        write_versioned(json_file, warning)
    plain_console().print(LiveTable(warning))
    status = {"green": 0, "amber": EXIT_AMBER, "red": EXIT_BAD_NEWS, "unknown": EXIT_UNKNOWN}
    raise typer.Exit(status[warning.colour])
