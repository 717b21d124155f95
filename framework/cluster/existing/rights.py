"""What a run may have to do in a cluster, right by right, and which of it its user is not allowed.

Each right is asked for beforehand, by a SelfSubjectAccessReview, so that nothing is half made when the first
refusal comes. Kubernetes lets nobody grant what he does not have: the rights that kwok gets are needed too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import msgspec

from framework.cluster.api import Bulk, Call
from framework.errors import KilonodeError
from framework.run_objects import LEASE_NAMESPACE

REVIEWS_PATH: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_LEASES: Final = "coordination.k8s.io"
_RBAC: Final = "rbac.authorization.k8s.io"
KWOK_RULES: Final[tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]] = (
    ("", ("events",), ("create", "patch", "update")),
    ("", ("nodes",), ("get", "list", "watch")),
    ("", ("nodes/status", "pods/status"), ("patch", "update")),
    ("", ("pods",), ("delete", "get", "list", "patch", "update", "watch")),
    (_LEASES, ("leases",), ("create", "get", "list", "patch", "update", "watch")),
)
"""Group, resources and verbs that kwok 0.8.0 uses without its own kinds (kustomize/rbac/role.yaml)."""


class Right(NamedTuple):
    """May do ``verb`` with ``resource`` (``nodes``, ``pods/log``); everywhere without ``namespace``."""

    group: str
    resource: str
    verb: str
    namespace: str = ""

    def __str__(self) -> str:
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {resource} " + (f"in {self.namespace}" if self.namespace else "(cluster-wide)")

    def review(self) -> dict[str, Any]:
        """The body of the question whether the asker has it."""
        resource, _, subresource = self.resource.partition("/")
        attributes = {"group": self.group, "resource": resource, "verb": self.verb}
        if subresource:
            attributes["subresource"] = subresource
        if self.namespace:
            attributes["namespace"] = self.namespace
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }


def needed_rights(namespace: str, *, real_nodes: bool = False) -> tuple[Right, ...]:
    """Every right that a run needs whose namespace is to be ``namespace``.

    With ``real_nodes`` also those for kube-proxy's pod and its log.
    """
    return tuple(dict.fromkeys(_rights(namespace, real_nodes=real_nodes)))


def _rights(namespace: str, *, real_nodes: bool) -> Iterator[Right]:
    def of(group: str, resource: str, verbs: str, where: str = "") -> Iterator[Right]:
        for verb in verbs.split():
            yield Right(group, resource, verb, where)

    for group, resources, kwoks_verbs in KWOK_RULES:
        for resource in resources:
            yield from of(group, resource, " ".join(kwoks_verbs))
    yield from of("", "nodes", "create delete deletecollection")
    yield from of("", "namespaces", "create delete list")
    yield from of("apps", "deployments", "list")
    for resource in ("clusterroles", "clusterrolebindings"):
        yield from of(_RBAC, resource, "create list deletecollection")
    yield from of(_LEASES, "leases", "deletecollection", LEASE_NAMESPACE)
    for resource in ("serviceaccounts", "configmaps"):
        yield from of("", resource, "create", namespace)
    yield from of("apps", "deployments", "create get deletecollection", namespace)
    yield from of("apps", "daemonsets", "create list patch deletecollection", namespace)
    yield from of("apps", "daemonsets/status", "get", namespace)
    yield from of("", "services", "create get list delete", namespace)
    yield from of(
        "discovery.k8s.io", "endpointslices", "create list update delete deletecollection", namespace
    )
    yield from of("", "pods", "deletecollection", namespace)
    if real_nodes:
        yield from of("", "pods/log", "get", "kube-system")


def cluster_role_rules(rights: Iterable[Right]) -> list[dict[str, Any]]:
    """The rules of a ClusterRole that grants these rights, in every namespace."""
    wanted = sorted({(right.group, right.resource, right.verb) for right in rights})
    rules: list[dict[str, Any]] = []
    for (group, resource), found in groupby(wanted, key=lambda right: right[:2]):
        verbs = [verb for _, _, verb in found]
        if rules and rules[-1]["apiGroups"] == [group] and rules[-1]["verbs"] == verbs:
            rules[-1]["resources"].append(resource)
        else:
            rules.append({"apiGroups": [group], "resources": [resource], "verbs": verbs})
    return rules


class _Status(msgspec.Struct):
    allowed: bool = False


class _Review(msgspec.Struct):
    status: _Status = msgspec.field(default_factory=_Status)


async def missing_rights(bulk: Bulk, rights: Sequence[Right]) -> tuple[Right, ...]:
    """Those of ``rights`` that the asker does not have, in their order."""
    missing = []
    for right in rights:
        answer = await bulk.request(Call("POST", REVIEWS_PATH, msgspec.json.encode(right.review())))
        if not msgspec.json.decode(answer, type=_Review).status.allowed:
            missing.append(right)
    return tuple(missing)


def refuse_missing(missing: Sequence[Right], *, context: str) -> None:
    """Raises KilonodeError that names every missing right, if there is any."""
    if missing:
        raise KilonodeError(
            f"{len(missing)} rights are missing in the cluster: {'; '.join(map(str, missing))}",
            where=f"--context {context}",
            remedy="have the ClusterRole of docs/existing-clusters.md bound to this user",
        )
