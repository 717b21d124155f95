"""Everything of one run in a cluster that is not its own, removed by the run's label.

The ledger calls this after a run that ended, failed or was killed, so nothing is known here but a kubeconfig,
a context and the label. What has the label goes, whatever it is called, and nothing else.

The order matters. Workloads go first, while kwok still runs; then kwok, or it would write leases of nodes
that are gone; then nodes with their leases; then the namespace and what has none. Pods of the cluster's own
DaemonSets on fake nodes are its pod garbage collector's to remove.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from framework.errors import KilonodeError, TimeLimitError
from framework.lazy import LazyModule
from framework.wait import wait_until

if TYPE_CHECKING:
    import kubernetes
    import urllib3
else:
    kubernetes, urllib3 = LazyModule("kubernetes"), LazyModule("urllib3")

RUN_LABEL: Final = "kilonode.dev/run"
PART_LABEL: Final = "kilonode.dev/part"
"""On kwok's own objects, which outlive the workloads."""
KWOK_PART: Final = "kwok"
GONE_TIMEOUT_S: Final = 900.0
"""The API server deletes several hundred objects a second: 100,000 nodes and as many leases take minutes."""
REQUEST_TIMEOUT_S: Final = 90.0
"""Beyond kube-apiserver's own minute, after which it gives up a deletion of many."""
LOOK_INTERVAL_S: Final = 0.5
PAGE_SIZE: Final = 500
LEASE_NAMESPACE: Final = "kube-node-lease"
LEASES_PATH: Final = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases"
"""Of all nodes, real and fake."""


@dataclass(frozen=True)
class Kind:
    """Objects of one kind: where a list of them is, and which of a run's go in this step.

    ``selector`` is beside the run's label. ``at_once``: without a grace period. Namespaces can't be deleted
    by label, so those that have it are deleted by name (``by_name``).
    """

    path: str
    selector: str = ""
    at_once: bool = False
    by_name: bool = False


_NOT_KWOK: Final = f"{PART_LABEL}!={KWOK_PART}"
STEPS: Final[tuple[tuple[Kind, ...], ...]] = (
    (
        Kind("/apis/apps/v1/{namespace}/daemonsets"),
        Kind("/api/v1/{namespace}/services", by_name=True),
        Kind("/apis/discovery.k8s.io/v1/{namespace}/endpointslices"),
    ),
    (Kind("/api/v1/{namespace}/pods", _NOT_KWOK, at_once=True),),
    (Kind("/apis/apps/v1/{namespace}/deployments"),),
    (Kind("/api/v1/{namespace}/pods"),),
    (Kind("/api/v1/nodes"),),
    (Kind(LEASES_PATH),),
    (
        Kind("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"),
        Kind("/apis/rbac.authorization.k8s.io/v1/clusterroles"),
        Kind("/api/v1/namespaces", by_name=True),
    ),
)
"""What a step deletes is gone before the next one begins. ``{namespace}`` is the run's."""


def namespace_of(run: str) -> str:
    """The namespace that a run makes for itself."""
    return f"kilonode-{run}"


def remove_run(kubeconfig: Path, context: str, run: str, *, timeout_s: float = GONE_TIMEOUT_S) -> None:
    """Remove all that has the run's label, and return when it is gone.

    Raises KilonodeError where the cluster can't be reached or refuses, TimeLimitError where something stays.
    """
    deadline_s = time.monotonic() + timeout_s
    remedy = f"make the cluster answer under context {context}, then run `kilonode clean`"
    try:
        with kubernetes.config.new_client_from_config(str(kubeconfig), context) as client:
            client.configuration.retries = False
            for step in STEPS:
                _remove_step(client, step, run, deadline_s)
    except TimeLimitError:
        raise
    except (kubernetes.config.ConfigException, OSError) as error:
        raise KilonodeError(
            f"the kubeconfig can't be read any more: {error}", where=str(kubeconfig), remedy=remedy
        ) from error
    except urllib3.exceptions.HTTPError as error:
        raise KilonodeError(f"the cluster does not answer: {error}", where=context, remedy=remedy) from error
    except kubernetes.client.ApiException as error:
        raise KilonodeError(
            f"the cluster refused to remove what run {run} left: {error.status} {error.reason}",
            where=context,
            remedy=f"get the rights back, or delete what has the label {RUN_LABEL}={run} by hand",
        ) from error


def _remove_step(client: Any, step: tuple[Kind, ...], run: str, deadline_s: float) -> None:
    left: dict[str, int] = {}

    def gone() -> bool | None:
        for kind in step:
            left[kind.path] = _remove_some(client, kind, run)
        return not any(left.values()) or None

    wait_until(
        gone,
        what=f"the end of what run {run} created",
        timeout_s=max(LOOK_INTERVAL_S, deadline_s - time.monotonic()),
        interval_s=LOOK_INTERVAL_S,
        describe=lambda: ", ".join(f"{count} at {path}" for path, count in left.items() if count),
        remedy="look for finalizers on these, then run `kilonode clean`",
    )


def _remove_some(client: Any, kind: Kind, run: str) -> int:
    """Ask for the deletion of a page of the objects; gives how many there were before."""
    path = kind.path.format(namespace=f"namespaces/{namespace_of(run)}")
    selector = ",".join(filter(None, (f"{RUN_LABEL}={run}", kind.selector)))
    query = [("labelSelector", selector), ("limit", str(PAGE_SIZE))]
    found = _call(client, "GET", path, query)
    items = found.get("items") or []
    if not items:
        return 0
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    if kind.at_once:
        options["gracePeriodSeconds"] = 0
    if kind.by_name:
        for item in items:
            if "deletionTimestamp" not in item["metadata"]:
                _call(client, "DELETE", f"{path}/{item['metadata']['name']}", [], options)
    else:
        _call(client, "DELETE", path, query, options)
    return len(items) + int(found["metadata"].get("remainingItemCount") or 0)


def _call(
    client: Any, method: str, path: str, query: list[tuple[str, str]], body: Any = None
) -> dict[str, Any]:
    """The decoded answer; empty for what is gone already, and for a deletion that goes on in the server."""
    try:
        answer = client.call_api(
            path,
            method,
            query_params=query,
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=REQUEST_TIMEOUT_S,
        )
    except kubernetes.client.ApiException as error:
        if error.status == 404 or (method == "DELETE" and error.status in (409, 429, 500, 504)):
            return {}
        raise
    return dict(msgspec.json.decode(answer.data))
