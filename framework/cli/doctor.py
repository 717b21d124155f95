"""`kilonode doctor`: whether this machine can measure, and what to do where it can't."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from framework.cli.app import EXIT_MISSING, RUNS, app, plain_console
from framework.doctor import Ability, Asked, Check, abilities, examine, keeps_from_measuring, look
from framework.spec import require_count
from framework.units import parse_count

_STYLES: Final = {"good": "green", "warning": "yellow", "bad": "bold red"}
NAME_COLUMNS: Final = 17


class Diagnosis(msgspec.Struct, frozen=True):
    """What `kilonode doctor --json` prints."""

    nodes: int
    ready: bool
    checks: tuple[Check, ...]
    abilities: tuple[Ability, ...]


@app.command()
def doctor(
    max_nodes: Annotated[
        str, typer.Option("--max-nodes", metavar="N", help="The fleet that shall fit, such as 10k or 100k.")
    ] = "10k",
    runs: Annotated[
        Path, typer.Option("--runs-dir", metavar="DIR", help="Where run folders shall go.")
    ] = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, for scripts.")] = False,
) -> None:
    """Say whether this machine can measure, and what to do if not.

    Each fact is good, a warning, or bad with its remedy; below them is what can be run as it is. A run makes
    the same checks before it creates anything. Nothing is changed, and nothing is left.

    Exit status: 0 where `pytest -k scenario` can be run at that size, else 3.

    \b
    Examples:
      kilonode doctor
      kilonode doctor --max-nodes 100k --json
    """
    asked = Asked(nodes=require_count(parse_count(max_nodes, where="--max-nodes"), where="--max-nodes"))
    facts = look(runs)
    checks = examine(facts, asked)
    able = abilities(checks, facts, asked)
    ready = not keeps_from_measuring(checks)
    if as_json:
        diagnosis = Diagnosis(nodes=asked.nodes, ready=ready, checks=checks, abilities=able)
        print(msgspec.json.format(msgspec.json.encode(diagnosis)).decode())
    else:
        _tell(plain_console(), checks, able)
    if not ready:
        raise typer.Exit(EXIT_MISSING)


def _tell(console: Console, checks: tuple[Check, ...], able: tuple[Ability, ...]) -> None:
    for check in checks:
        line = Text.assemble(
            (f"{check.state:8}", _STYLES[check.state]), f"{check.name:{NAME_COLUMNS}}", check.found
        )
        console.print(line, soft_wrap=True)
        if check.state != "good":
            console.print(Text(f"{'':{8 + NAME_COLUMNS}}Remedy: {check.remedy}", "dim"), soft_wrap=True)
    console.print("\nWhat can be run here as it is:", highlight=False)
    for each in able:
        word, style = ("yes", "green") if each.can else ("no", "bold red")
        why = f"  (see {each.why_not})" if each.why_not else ""
        console.print(Text.assemble((f"{word:8}", style), f"{each.what}{why}"), soft_wrap=True)
