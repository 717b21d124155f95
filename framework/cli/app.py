"""The console script: its entry, its exit statuses, and what all commands share.

A measurement is a pytest run (``pytest -k scenario``). An error that the user can mend is one line with its
remedy and an exit status that a script can tell apart.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from framework.binaries import Binaries, Request
from framework.errors import BadInputError, KilonodeError, MissingRequirementError

EXIT_FAILED: Final = 1
"""Anything else than the others."""
EXIT_BAD_INPUT: Final = 2
"""A value that was refused."""
EXIT_MISSING: Final = 3
"""What this machine lacks."""
EXIT_BAD_NEWS: Final = 4
"""The question was answered, and the answer is the bad one."""
EXIT_UNKNOWN: Final = 5
"""The question can't be answered from what is known."""
EXIT_AMBER: Final = 6
"""The answer is no bad one yet."""
PROGRAM: Final = "kilonode"
RUNS: Final = Path("runs")
PLAIN_COLUMNS: Final = 100

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


def main() -> None:
    """The console script ``kilonode``."""
    try:
        app(prog_name=PROGRAM)
    except KilonodeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(exit_status(error))


def exit_status(error: KilonodeError) -> int:
    """Of the statuses above, the one for an error."""
    match error:
        case BadInputError():
            return EXIT_BAD_INPUT
        case MissingRequirementError():
            return EXIT_MISSING
        case _:
            return EXIT_FAILED


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


@app.callback()
def kilonode(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version.")
    ] = False,
) -> None:
    """What a Kubernetes node pays when its cluster grows to 100,000 nodes.

    Measuring is a pytest run: `pytest -k scenario --max-nodes 1k`. The commands here get a machine ready,
    answer one question each, show what was measured and remove what a run left.

    \b
    kilonode COMMAND --help says when to use one, with examples. To begin with:
      kilonode doctor
      kilonode setup
      kilonode forecast

    Exit status: 0 if all is well, 1 if it failed, 2 if a value was refused, 3 if this machine lacks
    something. Where an answer has a status of its own, the command's help says so.
    """


def require_folder(path: Path | None) -> Path | None:
    """``path``, a file whose folder is there; else BadInputError, before anything is measured for it."""
    if path is not None and path.is_dir():
        raise BadInputError("it is a folder", where=str(path), remedy="give a file in it")
    if path is not None and not path.parent.is_dir():
        raise BadInputError(
            f"there is no folder {path.parent}", where=str(path), remedy="give one that is there"
        )
    return path


def run_names() -> list[str]:
    """What a shell completes RUN with: the names in ``runs/``."""
    return sorted(path.name for path in RUNS.glob("*") if path.is_dir())


def known_requests(binaries: Binaries) -> list[Request]:
    """What is pinned, in the order of the pins, then what else is in the cache."""
    pinned = [
        Request(name, pinned) for name, pin in binaries.pins.binaries.items() for pinned in pin.versions
    ]
    installed = [Request(binary.name, binary.version) for binary in binaries.installed()]
    return list(dict.fromkeys([*pinned, *installed]))


def complete_requests() -> list[str]:
    """What a shell completes NAME@VERSION with; nothing where what is known can't be read."""
    with suppress(KilonodeError):
        return [f"{request.name}@{request.version}" for request in known_requests(Binaries())]
    return []


def complete_kube_proxies() -> list[str]:
    """What a shell completes the VERSION of a kube-proxy with."""
    found = (request.partition("@") for request in complete_requests())
    return [version for name, _, version in found if name == "kube-proxy"]


OneRun = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]",
        help="A run's folder or name, or one measurement's folder.",
        autocompletion=run_names,
    ),
]
SomeRuns = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...", help="Runs' folders, or their names in runs/.", autocompletion=run_names
    ),
]
KubeProxies = Annotated[
    list[str] | None,
    typer.Option(
        "--kube-proxy",
        metavar="VERSION",
        help="Exact version; may be repeated.",
        autocompletion=complete_kube_proxies,
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", callback=require_folder, help="Write the answer to FILE too."),
]


def refuse_beside(context: typer.Context, option: str, refused: Sequence[str], *, why: str) -> None:
    """Raise BadInputError where one of the options ``refused`` was given beside ``option``."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.opts[0] in refused and source is not None and source.name == "COMMANDLINE":
            raise BadInputError(why, where=parameter.opts[0], remedy=f"give it without {option}")


def plain_console() -> Console:
    """Standard output; as wide as its terminal, and wide enough for the tables in a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_COLUMNS)


def run_folder(run: str) -> Path:
    """A run by its folder, or by its name in ``runs/``."""
    return Path(run) if Path(run).is_dir() else RUNS / run
