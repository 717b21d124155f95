"""What must not leave a machine, taken out of texts: secrets, the machine's names, its users' folders.

A bundle goes to strangers. Every text in it comes through here, and each kind of thing has one replacement,
the same everywhere, so that the texts still fit together. Secrets are known by their form: a form that is not
listed passes, which is why only files that kilonode knows come into a bundle at all.
"""

from __future__ import annotations

import getpass
import os
import pwd
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

HOST: Final = "<host>"
HOME: Final = "<home>"
FOLDER: Final = "<folder>"
USER: Final = "<user>"
SECRET: Final = "<secret>"  # noqa: S105 - what stands in its place
_NAME_CHARS_MIN: Final = 3
"""Shorter names are found everywhere; a host called so is no secret."""
_PUBLIC_NAMES: Final = frozenset(
    {"localhost", "debian", "ubuntu", "fedora", "linux", "kubernetes", "root"}
    | {"host", "node", "user", "admin", "home", "folder", "secret"}
)
"""Names that a host or a user may have and that say nothing of it, but stand in every log, or here."""

_ESCAPED: Final = r"(?<=\\[nrt])"
"""After a line's end or a tab as JSON and Go's %q write it, whose letter is no part of the word behind it."""
_PASSWORD: Final = r"pass(?:word|wd|phrase)"  # noqa: S105 - how its field is named
_KEY: Final = (
    r"(?:client-key|client-certificate|certificate-authority)-data"
    r"|secret|token|api[_-]?key|access[_-]?key|private[_-]?key"
)
_SECRET_FIELD: Final = re.compile(rf".*(?:{_PASSWORD}|{_KEY})", re.IGNORECASE | re.DOTALL)
_HARMLESS: Final = r"(?!(?:true|false|null|none|[^\w\s\"',;]*)(?:[\s\"',;}\])\\]|$))"
"""No secret begins here, but what a setting whose name has "token" in it may well have."""


def _setting(names: str, bare: str) -> re.Pattern[str]:
    """A field and its value, quoted or ``bare``. Quotes in JSON within JSON have backslashes before them."""
    quoted = r"(?:(?!(?<!\\)(?P=quote))[^\n])+(?=(?P=quote))"
    return re.compile(
        rf"(?i)(?P<name>(?<![\w.-])[\w.-]*(?:{names})\\*[\"']?[ \t]*[:=][ \t]*(?P<quote>(?:\\*[\"'])?))"
        rf"{_HARMLESS}(?:{quoted}|{bare})"
    )


_BEGIN: Final = r"-----BEGIN (?P<what>[A-Z0-9 ]*(?:PRIVATE KEY|CERTIFICATE)[A-Z ]*)-----"
_SECRETS: Final = (
    re.compile(rf"{_BEGIN}.*?-----END (?P=what)-----", re.DOTALL),
    re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)+"),
    re.compile(rf"{_BEGIN}[A-Za-z0-9+/=\s\\]*"),
    re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/=]*"),
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"(?i)(?<=basic )[A-Za-z0-9+/]{8,}={0,2}"),
    _setting(_PASSWORD, bare=r"(?:[^\s\"',;\\]|\\+(?![\"'\\]))+"),
    _setting(_KEY, bare=r"(?:[^\s\"',;\\<>{}]|\\+(?![\"'\\])){6,}"),
    re.compile(r"(?<=://)[^\s/@:\"'<>\\]*:[^\s/\"'<>\\]+(?=@)"),
    re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"),
    re.compile(r"(?:gh[pousr]|github_pat)_[A-Za-z0-9_]{20,}"),
    re.compile(r"xox[a-z]-[A-Za-z0-9-]{10,}"),
)
_ANY_HOME: Final = re.compile(r"(?:/(?:home|Users)/[^/\s\"':,;()\[\]{}<>\\]+)+")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What tells one machine from another: its names, its users, their homes, and where one works on it."""

    host_names: tuple[str, ...]
    users: tuple[str, ...]
    homes: tuple[str, ...]
    folders: tuple[str, ...]

    @classmethod
    def this(cls) -> Machine:
        """The machine and the user that this process has."""
        names = {socket.gethostname(), os.uname().nodename}
        with suppress(OSError):
            names.add(socket.getfqdn())
        names |= {name.partition(".")[0] for name in names}
        users = {os.environ.get(variable, "") for variable in ("USER", "LOGNAME", "SUDO_USER")}
        homes = {os.environ.get("HOME", "")}
        with suppress(OSError, KeyError):
            users.add(getpass.getuser())
        for user in filter(None, users):
            with suppress(KeyError):
                homes.add(pwd.getpwnam(user).pw_dir)
        return cls(
            host_names=_telling(names),
            users=_telling(users),
            homes=tuple(sorted(homes - {"", "/"}, key=len, reverse=True)),
            folders=tuple(sorted({str(Path.cwd())} - {"/"})),
        )


class Redactor:
    """Takes out of texts what is a secret, or names ``machine``."""

    def __init__(self, machine: Machine) -> None:
        self._folders = [*((f, FOLDER) for f in machine.folders), *((h, HOME) for h in machine.homes)]
        self._folders.sort(key=lambda pair: len(pair[0]), reverse=True)
        self._names = [
            *((_whole(name), HOST) for name in machine.host_names),
            *((_whole(name), USER) for name in machine.users),
        ]

    def text(self, text: str) -> str:
        """``text`` without any of it."""
        for secret in _SECRETS:
            text = secret.sub(_replacement, text)
        for folder, word in self._folders:
            text = re.sub(rf"{re.escape(folder)}(?![\w-])", word, text)
        text = _ANY_HOME.sub(HOME, text)
        for name, word in self._names:
            text = name.sub(word, text)
        return text

    def json(self, content: bytes) -> bytes:
        """JSON whose texts are without any of it; its fields keep their names, so that it can be read."""
        return msgspec.json.encode(self._value(msgspec.json.decode(content)))

    def _value(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case list():
                return [self._value(each) for each in value]
            case dict():
                return {name: self._field(name, each) for name, each in value.items()}
            case _:
                return value

    def _field(self, name: str, value: Any) -> Any:
        is_secret = isinstance(value, str) and value and _SECRET_FIELD.fullmatch(name)
        return SECRET if is_secret else self._value(value)


def _replacement(found: re.Match[str]) -> str:
    return f"{found.groupdict().get('name', '')}{SECRET}"


def _telling(names: Sequence[str] | set[str]) -> tuple[str, ...]:
    """Names that are worth hiding, longest first."""
    kept = {name for name in names if len(name) >= _NAME_CHARS_MIN and name.lower() not in _PUBLIC_NAMES}
    return tuple(sorted(kept, key=len, reverse=True))


def _whole(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?:(?<![A-Za-z0-9-])|{_ESCAPED}){re.escape(name)}(?![A-Za-z0-9-])", re.IGNORECASE)
