"""Commands that measure to answer one question each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer
from rich.console import Console

from framework.analysis.limit_search import LimitSearch
from framework.answers import LIMIT_FILE, LimitAsked, LimitTable, find_limit, load_limit, trial_line
from framework.binaries import Binaries
from framework.cli.app import (
    EXIT_BAD_NEWS,
    EXIT_FAILED,
    RUNS,
    JsonFile,
    KubeProxies,
    app,
    complete_kube_proxies,
    plain_console,
    refuse_beside,
    run_folder,
    run_names,
)
from framework.command_lab import command_lab
from framework.errors import BadInputError
from framework.lab import LabSettings
from framework.outcome import Phase
from framework.profiles import PROFILES, parse_ballast
from framework.spec import AskedMode, require_version
from framework.stages import StagesRun, StagesTable, write_stages
from framework.twin import profile_files, profile_twins
from framework.units import parse_bytes, parse_count
from framework.versioned_file import write_versioned

PHASES: Final = get_args(Phase)
MODES: Final = get_args(AskedMode)
OF_A_SEARCH: Final = (
    "--endpoints",
    "--kube-proxy",
    "--phase",
    "--ballast",
    "--resolution",
    "--repeats",
    "--highest",
)


@app.command("stages")
def profile_stages(
    kube_proxies: KubeProxies = None,
    endpoints: Annotated[
        list[str] | None,
        typer.Option("--endpoints", metavar="N", help="Such as 1k; may be repeated (default 1k)."),
    ] = None,
    transactions: Annotated[
        list[Path] | None,
        typer.Option(
            "--transaction",
            metavar="FILE",
            help="Profile a transaction that you have; if repeated, the last one, loaded after the others.",
        ),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Profile where nft's memory is when it loads a Service.

    Use it to find out what of nft's peak is the parsed tree, its objects and the netlink buffer. A real
    kube-proxy programs a Service on a twin node, whose nft keeps what it is given; the real nft loads that
    again under massif (`kilonode setup --profiler`), and once more without it. 100,000 endpoints of
    kube-proxy 1.35 take two minutes and 4 GiB.

    \b
    Examples:
      kilonode stages --endpoints 1k --endpoints 10k
      kilonode stages --transaction first.nft --transaction second.nft
    """
    console = plain_console()
    found: tuple[StagesRun, ...]
    if transactions and (kube_proxies or endpoints):
        raise BadInputError(
            "a transaction from a file has no twin",
            where="--transaction",
            remedy="give it without --kube-proxy and --endpoints",
        )
    if transactions:
        found = (profile_files(transactions),)
    else:
        binaries = Binaries()
        versions = [require_version(version, where="--kube-proxy") for version in kube_proxies or ()]
        sizes = [parse_count(size, where="--endpoints") for size in endpoints or ["1k"]]
        found = profile_twins(
            binaries,
            versions or binaries.default_kube_proxies(),
            sizes,
            runs=RUNS,
            console=Console(stderr=True),
        )
    if json_file is not None:
        write_stages(json_file, found)
    console.print(StagesTable(found))


@app.command("limit")
def search_limit(
    context: typer.Context,
    *,
    endpoints: Annotated[
        str, typer.Option("--endpoints", metavar="N", help="Endpoints of the Service, such as 10k.")
    ] = "10k",
    kube_proxy: Annotated[
        str,
        typer.Option(
            "--kube-proxy",
            metavar="VERSION",
            help="Exact version (default: the oldest pinned).",
            autocompletion=complete_kube_proxies,
        ),
    ] = "",
    phase: Annotated[
        str,
        typer.Option(
            "--phase",
            metavar="PHASE",
            help=f"What is survived: {', '.join(PHASES)}.",
            autocompletion=lambda: PHASES,
        ),
    ] = "first_programming",
    ballast: Annotated[
        str,
        typer.Option(
            "--ballast", metavar="SIZE", help="What else runs on the node: a size, or a profile (ordinary)."
        ),
    ] = "0",
    resolution: Annotated[
        str, typer.Option("--resolution", metavar="SIZE", help="How close the two limits are brought.")
    ] = "16MiB",
    repeats: Annotated[
        int, typer.Option("--repeats", metavar="N", help="Trials of each limit at the edge.")
    ] = 3,
    highest: Annotated[
        str, typer.Option("--highest", metavar="SIZE", help="The largest limit that is tried, and the first.")
    ] = "4GiB",
    endpoint_mode: Annotated[
        str,
        typer.Option(
            "--endpoint-mode",
            metavar="MODE",
            help=f"One of {', '.join(MODES)}.",
            autocompletion=lambda: MODES,
        ),
    ] = "endpointslices",
    fits: Annotated[
        str,
        typer.Option(
            "--fits", metavar="SIZE", help="End with status 4 unless a node with so much memory survives."
        ),
    ] = "",
    resume: Annotated[
        str,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with an interrupted search, by its run folder or name.",
            autocompletion=run_names,
        ),
    ] = "",
    json_file: JsonFile = None,
) -> None:
    """Search how much memory a node needs.

    Use it to choose a node's size, or to prove that one is too small: the answer is the smallest limit that
    survives and the largest that kills. Each trial is a fresh node in a fresh memory cgroup with the real
    kubelet, containerd, kube-proxy and nft, on one cluster and fleet. 10,000 endpoints take three to six
    minutes.

    \b
    Examples:
      kilonode limit
      kilonode limit --endpoints 20k --kube-proxy 1.37.2 --fits 1GiB

    Exit status: 0 with an answer, 4 where it is more than --fits, 1 where even the highest limit kills.
    """
    if resume:
        refuse_beside(context, "--resume", OF_A_SEARCH, why="the interrupted search says what is asked")
    earlier = load_limit(run_folder(resume)) if resume else None
    asked = (
        earlier.asked
        if earlier is not None
        else _limit_asked(
            endpoints,
            kube_proxy,
            phase,
            ballast,
            LimitSearch(
                resolution_bytes=parse_bytes(resolution, where="--resolution"),
                repeats=repeats,
                highest_bytes=parse_bytes(highest, where="--highest"),
            ),
        )
    )
    fits_bytes = parse_bytes(fits, where="--fits") if fits else None
    settings = LabSettings(
        max_nodes=asked.endpoints,
        cluster="embedded",
        mode=_one_of(endpoint_mode, AskedMode, where="--endpoint-mode"),
        keep=False,
    )
    console, errors = plain_console(), Console(stderr=True)
    folder: Path | None = None
    try:
        with command_lab(Binaries(), [asked.kube_proxy], settings, runs=RUNS, console=errors) as lab:
            folder = lab.run_folder.path
            result = find_limit(
                lab,
                asked,
                earlier=earlier.trials if earlier is not None else (),
                on_trial=lambda trial: errors.print(trial_line(trial), highlight=False, soft_wrap=True),
            )
    except KeyboardInterrupt:
        _tell_how_to_go_on(folder, console)
        raise
    if json_file is not None:
        write_versioned(json_file, result)
    console.print(LimitTable(result))
    console.print(f"Full result: {folder}", highlight=False, soft_wrap=True)
    surviving_bytes = result.edge.surviving_bytes
    if surviving_bytes is None:
        raise typer.Exit(EXIT_FAILED)
    if fits_bytes is not None and surviving_bytes > fits_bytes:
        raise typer.Exit(EXIT_BAD_NEWS)


def _tell_how_to_go_on(folder: Path | None, console: Console) -> None:
    """What an interrupted search in the run ``folder`` knows, if it knows anything yet."""
    if folder is None or not (folder / LIMIT_FILE).is_file():
        return
    known = load_limit(folder)
    if known.trials:
        console.print(LimitTable(known))
        console.print(f"Go on with: kilonode limit --resume {folder}", highlight=False, soft_wrap=True)


def _limit_asked(
    endpoints: str, kube_proxy: str, phase: str, ballast: str, search: LimitSearch
) -> LimitAsked:
    binaries = Binaries()
    version = require_version(kube_proxy or binaries.default_kube_proxies()[0], where="--kube-proxy")
    binaries.check_skew(version)
    return LimitAsked(
        kube_proxy=version,
        endpoints=parse_count(endpoints, where="--endpoints"),
        phase=_one_of(phase, Phase, where="--phase"),
        search=search,
        ballast=parse_ballast(ballast),
        ballast_profile=ballast if ballast in PROFILES else "",
    )


def _one_of(text: str, kind: Any, *, where: str) -> Any:
    """``text`` as one of a Literal's words. Raises BadInputError for another."""
    if text in get_args(kind):
        return text
    raise BadInputError(
        f"{text!r} is none of {', '.join(get_args(kind))}", where=where, remedy="give one of these"
    )
