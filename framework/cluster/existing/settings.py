"""Which cluster is meant: a kubeconfig and a context, both named, so that no other one is ever hit.

The kubeconfig's current context is what its user worked with last, and may be production: it is never used.
"""

from __future__ import annotations

from pathlib import Path

from framework.cluster.kubeconfig import Kubeconfig
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
        kubeconfig = Kubeconfig(Path(self.kubeconfig))
        names = ", ".join(kubeconfig.contexts) or "none"
        if not self.context:
            raise BadInputError(
                "a cluster that exists needs a context; the kubeconfig's current one is never taken",
                where="--context",
                remedy=f"give --context NAME, one of: {names}",
            )
        if self.context not in kubeconfig.contexts:
            raise BadInputError(
                f"there is no context {self.context!r} in {self.kubeconfig}",
                where="--context",
                remedy=f"give one of: {names}",
            )
        kubeconfig.require_complete(self.context)
        if self.node_command and "{node}" not in self.node_command:
            raise BadInputError(
                f"{self.node_command!r} names no node",
                where="--node-command",
                remedy='put {node} where the node\'s name is to be, as in "docker exec {node}"',
            )
