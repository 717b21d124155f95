"""What users build on is as it was recorded: whoever changes it means it, and says so.

The record is ``recorded/public_surface.txt``, a line for each thing that a user's code or script can name:
what ``framework.__all__`` has, with parameters, attributes and fields; what fixtures take and give; pytest's
options, fixtures and markers; the commands with their arguments, options and exit statuses. It is taken from
what Python shows of them, in words that depend on no release of Python, pytest or typer.

Where a change is meant: note it in CHANGELOG.md, and renew the record by running this file as a program.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
import typer

import framework
from framework import cli, pytest_plugin
from framework.process import run
from framework.spec import RealNodeSpec, ServiceSpec
from framework.workload import DaemonSetService, ManyServices

PROJECT = Path(__file__).parents[2]
RECORD = Path(__file__).parent / "recorded" / "public_surface.txt"
NAMED: dict[str, Any] = {name: getattr(framework, name) for name in framework.__all__}
OF_FIXTURES = (pytest_plugin.FleetFixture, RealNodeSpec, ServiceSpec, DaemonSetService, ManyServices)
FIXTURE = re.compile(r"^(\w+)(?: \[(\w+) scope\])? -- framework/pytest_plugin\.py", re.MULTILINE)
MARKER = re.compile(r"^@pytest\.mark\.(.*)$", re.MULTILINE)


def surface() -> str:
    sections = {
        "framework": [line for name, value in NAMED.items() for line in of_value(name, value)],
        "what fixtures take and give": [line for each in OF_FIXTURES for line in of_class(each)],
        "what fields of these hold": [line for each in reached() for line in of_class(each)],
        "pytest": [*of_options(), *of_fixtures(), *of_markers()],
        "kilonode": [*of_commands()],
    }
    return "\n".join("\n".join([f"[{title}]", *lines, ""]) for title, lines in sections.items())


def of_value(name: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield from of_class(value)
    elif callable(value):
        yield from of_function(name, value)
    else:
        yield f"{name} = {value!r}"


def of_class(kind: type[Any]) -> Iterator[str]:
    yield f"class {kind.__name__}: {', '.join(base.__name__ for base in kind.__bases__)}"
    made_by = kind if is_record(kind) else kind.__init__
    yield from of_parameters(kind.__name__, kind, get_type_hints(made_by))
    members = {name: value for each in reversed(ours(kind)) for name, value in vars(each).items()}
    for name, value in sorted(members.items()):
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            yield f"{kind.__name__}.{name} -> {shown(get_type_hints(value.fget).get('return'))}"
        elif inspect.isroutine(value):
            yield from of_function(f"{kind.__name__}.{name}", getattr(kind, name))


def ours(kind: type[Any]) -> list[type[Any]]:
    return [each for each in kind.__mro__ if each.__module__.startswith("framework")]


def is_record(kind: type[Any]) -> bool:
    """Whether its parameters are its fields."""
    return issubclass(kind, msgspec.Struct) or hasattr(kind, "__dataclass_fields__")


def of_function(name: str, function: Callable[..., Any]) -> Iterator[str]:
    hints = get_type_hints(function)
    yield from of_parameters(name, function, hints)
    yield f"{name}() -> {shown(hints.get('return'))}"


def of_parameters(name: str, called: Callable[..., Any], hints: dict[str, Any]) -> Iterator[str]:
    """``name(x)`` may be given by its place, ``name(x=)`` by its name alone."""
    for parameter in inspect.signature(called).parameters.values():
        if parameter.name == "self":
            continue
        before = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        after = "=" if parameter.kind is parameter.KEYWORD_ONLY else ""
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        yield f"{name}({before}{parameter.name}{after}): {shown(hints.get(parameter.name))}{default}"


def shown(hint: Any) -> str:
    """A type as one writes it, without modules, and with the words that an alias stands for."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is None or hint is NoneType:
        return "None"
    if hint is Ellipsis:
        return "..."
    if isinstance(hint, list):
        return f"[{', '.join(map(shown, hint))}]"
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin in (Union, UnionType):
        return " | ".join(map(shown, arguments))
    name = getattr(origin or hint, "__name__", str(hint))
    return f"{name}[{', '.join(map(shown, arguments))}]" if arguments else str(name)


def reached() -> list[type[Any]]:
    """Structs that the named classes hold or functions return, and theirs in turn, by their names."""
    known = {value for value in [*NAMED.values(), *OF_FIXTURES] if inspect.isclass(value)}
    found: dict[str, type[Any]] = {}
    left = [each for value in [*NAMED.values(), *OF_FIXTURES] for each in held(value)]
    while left:
        kind = left.pop()
        if kind not in known and kind.__name__ not in found:
            found[kind.__name__] = kind
            left += held(kind)
    return [kind for _, kind in sorted(found.items())]


def held(value: Any) -> list[type[Any]]:
    """The structs of a struct's fields, or of what a function returns."""
    if inspect.isclass(value) and issubclass(value, msgspec.Struct):
        return [each for hint in get_type_hints(value).values() for each in structs_in(hint)]
    if inspect.isfunction(value):
        return list(structs_in(get_type_hints(value).get("return")))
    return []


def structs_in(hint: Any) -> Iterator[type[Any]]:
    if inspect.isclass(hint) and issubclass(hint, msgspec.Struct):
        yield hint
    for argument in get_args(hint):
        yield from structs_in(argument)


class Options(list[str]):
    """Stands for pytest's parser and its group of options: notes what is added."""

    def getgroup(self, *_: str) -> Options:
        return self

    def addoption(self, option: str, **how: Any) -> None:
        noted = {key: how[key] for key in ("action", "metavar", "choices", "default") if key in how}
        self.append(" ".join([option, *(f"{key}={value!r}" for key, value in noted.items())]))


def of_options() -> list[str]:
    options = Options()
    pytest_plugin.pytest_addoption(options)  # type: ignore[arg-type]
    return options


def of_fixtures() -> list[str]:
    return [
        f"fixture {name}, {scope or 'function'} scope" for name, scope in FIXTURE.findall(told("--fixtures"))
    ]


def of_markers() -> list[str]:
    others = MARKER.findall(told("--markers", "-p", "no:kilonode"))
    return [f"marker {line}" for line in MARKER.findall(told("--markers")) if line not in others]


def told(*options: str) -> str:
    """What pytest says of itself and of kilonode's plugin alone, in a folder without tests."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "kwok"]
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"}
    return run(command, cwd=PROJECT, env={**os.environ, **alone}).text


def of_commands() -> Iterator[str]:
    program: Any = typer.main.get_command(cli.app)
    yield from of_command("kilonode", program)
    for name, command in sorted(program.commands.items()):
        yield from of_command(f"kilonode {name}", command)
    yield from (f"{name} = {getattr(cli, name)}" for name in cli.__all__ if name.startswith("EXIT_"))


def of_command(name: str, command: Any) -> Iterator[str]:
    yield name
    for parameter in command.params:
        words = [name]
        words += [", ".join(parameter.opts)] if parameter.param_type_name == "option" else []
        words += [parameter.metavar] if parameter.metavar else []
        words += ["(repeated)"] if parameter.multiple or parameter.nargs == -1 else []
        words += ["(required)"] if parameter.required else []
        words += [f"= {parameter.default}"] if isinstance(parameter.default, int | Path) else []
        words += [f"= {parameter.default!r}"] if isinstance(parameter.default, str) else []
        yield " ".join(words)


def test_is_as_it_was_recorded() -> None:
    recorded, found = RECORD.read_text().splitlines(), surface().splitlines()
    changes = list(difflib.unified_diff(recorded, found, "recorded", "found", n=0, lineterm=""))
    if changes:
        pytest.fail(
            "\n".join(["the public surface changed:", *changes])
            + "\nIf this is meant, note it in CHANGELOG.md and renew the record: "
            f"python {Path(__file__).relative_to(PROJECT)}",
            pytrace=False,
        )


if __name__ == "__main__":
    RECORD.write_text(surface())
