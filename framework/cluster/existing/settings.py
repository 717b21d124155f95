"""Which cluster is meant: a kubeconfig and a context, both named, so that no other one is ever hit.

The kubeconfig's current context is what its user worked with last, and may be production: it is never used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from framework.errors import BadInputError
from framework.spec import Spec


class ExistingSettings(Spec, frozen=True, kw_only=True):
    """A cluster to add to. ``real_nodes`` are those of its nodes that scenarios may look at.

    ``node_command`` is how a program is run on one of them, with ``{node}`` for its name; empty: not at all.
    """

    kubeconfig: str
    context: str
    real_nodes: tuple[str, ...] = ()
    node_command: str = ""

    def __post_init__(self) -> None:
        if not self.kubeconfig:
            raise BadInputError(
                "a cluster that exists needs a kubeconfig",
                where="--kubeconfig",
                remedy="give --kubeconfig FILE",
            )
        known = contexts_of(Path(self.kubeconfig))
        names = ", ".join(known) or "none"
        if not self.context:
            raise BadInputError(
                "a cluster that exists needs a context; the kubeconfig's current one is never taken",
                where="--context",
                remedy=f"give --context NAME, one of: {names}",
            )
        if self.context not in known:
            raise BadInputError(
                f"there is no context {self.context!r} in {self.kubeconfig}",
                where="--context",
                remedy=f"give one of: {names}",
            )
        if self.node_command and "{node}" not in self.node_command:
            raise BadInputError(
                f"{self.node_command!r} names no node",
                where="--node-command",
                remedy='put {node} where the node\'s name is to be, as in "docker exec {node}"',
            )


def contexts_of(kubeconfig: Path) -> tuple[str, ...]:
    """The names of a kubeconfig's contexts. Raises BadInputError where it can't be read as one."""
    try:
        document: Any = yaml.safe_load(kubeconfig.read_text())
        return tuple(str(context["name"]) for context in document["contexts"])
    except OSError as error:
        raise BadInputError(
            f"the kubeconfig can't be read: {error.strerror}",
            where=str(kubeconfig),
            remedy="give the path of a kubeconfig that you may read",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise BadInputError(
            "this is no kubeconfig: it has no list of contexts",
            where=str(kubeconfig),
            remedy="give a kubeconfig, as `kubectl config view --raw` prints it",
        ) from error
