"""A go.mod that builds a command which ``go install`` refuses.

``go install k8s.io/kubernetes/cmd/kube-proxy@v1.35.0`` fails, for that go.mod replaces its sibling modules by
folders of its repository. The siblings are published too, as modules of their own, so a small module that
repeats the ``go``, ``godebug`` and ``require`` lines and replaces each sibling by its published version
builds the very same packages. Pure functions: text in, text out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from framework.errors import KilonodeError

BUILD_MODULE: Final = "kilonode.invalid/build"
_BLOCK: Final = re.compile(r"(\w+)\s*\(")


@dataclass(frozen=True)
class Replace:
    """``target`` is a folder (``./...`` or ``../...``) or a module path with its version."""

    path: str
    target: str

    @property
    def is_folder(self) -> bool:
        return self.target.startswith(("./", "../"))


@dataclass(frozen=True)
class GoMod:
    """The directives of a go.mod that a build depends on; ``requires`` are (path, version) pairs."""

    module: str
    go: str
    godebugs: tuple[str, ...]
    requires: tuple[tuple[str, str], ...]
    replaces: tuple[Replace, ...]


def parse(text: str) -> GoMod:
    """Read a go.mod; raises KilonodeError where it lacks a ``module`` or ``go`` line."""
    found: dict[str, list[str]] = {}
    for verb, argument in _directives(text):
        found.setdefault(verb, []).append(argument)
    missing = {"module", "go"} - set(found)
    if missing:
        raise KilonodeError(
            f"a go.mod has no {' and no '.join(sorted(missing))} line",
            remedy="empty Go's module cache (go clean -modcache) and try again",
        )
    return GoMod(
        module=found["module"][0],
        go=found["go"][0],
        godebugs=tuple(found.get("godebug", ())),
        requires=tuple(_pair(line) for line in found.get("require", ())),
        replaces=tuple(_replace(line) for line in found.get("replace", ())),
    )


def _directives(text: str) -> Iterator[tuple[str, str]]:
    block: str | None = None
    for raw in text.splitlines():
        line = raw.partition("//")[0].strip()
        opening = _BLOCK.fullmatch(line)
        if not line:
            continue
        if block is not None:
            if line == ")":
                block = None
            else:
                yield block, line
        elif opening is not None:
            block = opening.group(1)
        else:
            verb, _, argument = line.partition(" ")
            yield verb, argument.strip()


def _pair(line: str) -> tuple[str, str]:
    path, _, version = line.partition(" ")
    return path, version.strip()


def _replace(line: str) -> Replace:
    path, _, target = line.partition("=>")
    return Replace(path.strip(), target.strip())


def derive(upstream: GoMod, *, version: str, sibling_version: str | None) -> str:
    """The go.mod of a module whose only purpose is to build commands of ``upstream`` at ``version``.

    Versions have Go's leading ``v``. ``sibling_version`` is what the modules replaced by folders are
    published as; raises KilonodeError when there are such modules and it is None.
    """
    siblings = {replace.path for replace in upstream.replaces if replace.is_folder}
    if siblings and sibling_version is None:
        raise KilonodeError(
            f"{upstream.module} replaces {len(siblings)} modules by folders",
            where="pins.yaml",
            remedy="give its supplier a sibling_version",
        )
    requires = [
        (path, str(sibling_version) if path in siblings else required) for path, required in upstream.requires
    ]
    replaces = [
        f"{replace.path} => {replace.path} {sibling_version}"
        if replace.is_folder
        else f"{replace.path} => {replace.target}"
        for replace in upstream.replaces
    ]
    lines = [
        f"module {BUILD_MODULE}",
        f"go {upstream.go}",
        *(f"godebug {godebug}" for godebug in upstream.godebugs),
        f"require {upstream.module} {version}",
        *(f"require {path} {required}" for path, required in requires),
        *(f"replace {line}" for line in replaces),
    ]
    return "\n".join(lines) + "\n"


def go_version(text: str) -> tuple[int, int, int]:
    """``(1, 26, 8)`` for ``go1.26.8``, ``1.26.8`` or ``go1.26.8 X:exp``; a missing patch is 0.

    Raises KilonodeError for what is no Go version. A pre-release (``go1.27rc1``) counts as its release.
    """
    match = re.match(r"(?:go)?(\d+)\.(\d+)(?:\.(\d+))?", text, re.ASCII)
    if match is None:
        raise KilonodeError(f"{text!r} is no Go version", remedy="install a released Go")
    major, minor, patch = match.groups(default="0")
    return int(major), int(minor), int(patch)
