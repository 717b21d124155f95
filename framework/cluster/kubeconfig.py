"""What a kubeconfig says, looked at before a client reads it.

The ``kubernetes`` client raises whatever it comes upon, and only when it is asked for a connection: after a
run has begun. Here a context is followed to its cluster and its user at once, and what is wrong is said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml

from framework.errors import BadInputError
from framework.versioned_file import read_file


class _Context(msgspec.Struct):
    cluster: str
    user: str = ""


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context


class _Cluster(msgspec.Struct):
    server: str = ""


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster


class _NamedUser(msgspec.Struct):
    name: str
    user: dict[str, Any] | None = None


class _Document(msgspec.Struct, rename="kebab"):
    contexts: list[_NamedContext]
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    current_context: str = ""


class Kubeconfig:
    """A kubeconfig that could be read. Raises BadInputError for one that can't."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._document = _document(path)

    @property
    def contexts(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(each.name for each in self._document.contexts)

    def require_complete(self, context: str) -> None:
        """Raises BadInputError where the cluster or the user of ``context`` is missing, or its server."""
        asked = self._context(context)
        clusters = {each.name: each.cluster for each in self._document.clusters or ()}
        if asked.cluster not in clusters:
            raise self._incomplete(context, f"cluster {asked.cluster!r}")
        if asked.user and asked.user not in {each.name for each in self._document.users or ()}:
            raise self._incomplete(context, f"user {asked.user!r}")
        require_https(clusters[asked.cluster].server, self.path)

    def says_who(self, context: str | None) -> bool:
        """Whether the user of ``context`` (None: of the current one) has anything to say so with."""
        asked = self._context(context or self._document.current_context)
        users: Mapping[str, Any] = {each.name: each.user for each in self._document.users or ()}
        return bool(users.get(asked.user))

    def _context(self, name: str) -> _Context:
        return next(each.context for each in self._document.contexts if each.name == name)

    def _incomplete(self, context: str, what: str) -> BadInputError:
        return BadInputError(
            f"the context {context!r} is of {what}, which is not in the kubeconfig",
            where=str(self.path),
            remedy="give the whole kubeconfig, as `kubectl config view --raw` prints it",
        )


def require_https(server: str, kubeconfig: Path) -> None:
    """Raises BadInputError for the address of a server that can't be asked by https."""
    try:
        place = urlsplit(server)
        usable = place.scheme == "https" and bool(place.hostname) and place.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise BadInputError(
            f"the server {server!r} can't be asked by https",
            where=str(kubeconfig),
            remedy="name the API server itself, not a local proxy",
        )


def _document(path: Path) -> _Document:
    try:
        return msgspec.convert(yaml.safe_load(read_file(path)), _Document)
    except OSError as error:
        raise BadInputError(
            f"the kubeconfig can't be read: {error.strerror}",
            where=str(path),
            remedy="give the path of a kubeconfig that you may read",
        ) from error
    except msgspec.ValidationError as error:
        raise _no_kubeconfig(path, str(error)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _no_kubeconfig(path, "it is no YAML") from error


def _no_kubeconfig(path: Path, why: str) -> BadInputError:
    return BadInputError(
        f"this is no kubeconfig: {why}",
        where=str(path),
        remedy="give a kubeconfig, as `kubectl config view --raw` prints it",
    )
