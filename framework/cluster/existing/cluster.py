"""The control plane of a cluster that was there before, and what is put into it to have fakes.

Nothing of the cluster is stopped, tuned or restarted, and its node controller's patience is not known. What
is missing for a run is found out before anything is created: whether it answers, whether it has a kwok
already, whether its user has every right.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from framework.cluster.api import ApiEndpoint, Bulk, Call, run_bulk
from framework.cluster.control_plane import Cluster
from framework.cluster.existing.manifests import (
    FAKES_LABEL,
    Sharding,
    base_objects,
    deployments_path,
    fake_labels,
    kwok_deployment,
    shard_name,
)
from framework.cluster.existing.plan import Plan, plan
from framework.cluster.existing.rights import missing_rights, needed_rights, refuse_missing
from framework.cluster.existing.settings import ExistingSettings
from framework.cluster.home import Home
from framework.cluster.lease_budget import LeaseBudget, production_budget
from framework.errors import BadInputError, KilonodeError
from framework.ledger import ClusterObjects, Ledger
from framework.outcome import Component
from framework.run_objects import RUN_LABEL
from framework.wait import wait_until

ANSWER_TIMEOUT_S: Final = 10.0
KWOK_TIMEOUT_S: Final = 180.0
"""The image may have to be pulled."""
_FOREIGN_KWOK: Final = "/kwok/kwok"
_DRY_RUN: Final = "RUN"


class _Metadata(msgspec.Struct):
    name: str
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Node(msgspec.Struct):
    metadata: _Metadata

    @property
    def is_kwoks(self) -> bool:
        return FAKES_LABEL in self.metadata.labels or FAKES_LABEL in self.metadata.annotations


class _Container(msgspec.Struct):
    image: str = ""


class _PodSpec(msgspec.Struct):
    containers: list[_Container] = []


class _Template(msgspec.Struct):
    spec: _PodSpec


class _DeploymentSpec(msgspec.Struct):
    template: _Template


class _DeploymentStatus(msgspec.Struct, rename="camel"):
    ready_replicas: int = 0
    conditions: list[dict[str, Any]] = []


class _Deployment(msgspec.Struct):
    metadata: _Metadata
    spec: _DeploymentSpec
    status: _DeploymentStatus = msgspec.field(default_factory=_DeploymentStatus)

    @property
    def is_kwok(self) -> bool:
        return any(_FOREIGN_KWOK in container.image for container in self.spec.template.spec.containers)


class _Version(msgspec.Struct, rename="camel"):
    git_version: str


class ExistingCluster(Cluster):
    """Made by ``join``, after which nothing but kwok's account and settings are there."""

    kind = "existing"

    def __init__(
        self, settings: ExistingSettings, run_id: str, *, kwok_version: str, sharding: Sharding
    ) -> None:
        self.settings = settings
        self.run_id = run_id
        self.home = Home.of_run(run_id)
        self.name = self.home.namespace
        self.sharding = sharding
        self._kwok_version = kwok_version
        self._budget = production_budget(1)
        self._shards = 0

    @classmethod
    def join(
        cls,
        ledger: Ledger,
        settings: ExistingSettings,
        *,
        kwok_version: str,
        sharding: Sharding = Sharding(),  # noqa: B008 - frozen
    ) -> ExistingCluster:
        """A cluster that answered and may be used, with a namespace of the run's own.

        Raises KilonodeError for what stands in the way; nothing was created then.
        """
        cluster = cls(settings, ledger.run_id, kwok_version=kwok_version, sharding=sharding)
        cluster.require_usable()
        ledger.record(
            ClusterObjects(
                kubeconfig=str(Path(settings.kubeconfig).absolute()),
                context=settings.context,
                run=ledger.run_id,
            )
        )
        cluster._post(base_objects(cluster.home, cluster.budget))
        return cluster

    @classmethod
    def dry_run(cls, settings: ExistingSettings, nodes: int, *, kwok_version: str) -> Plan:
        """What a run with ``nodes`` fakes would create, in a cluster that could be used."""
        cluster = cls(settings, _DRY_RUN, kwok_version=kwok_version, sharding=Sharding())
        cluster.require_usable()
        return plan(
            cluster.home,
            cluster.sharding,
            nodes=nodes,
            context=settings.context,
            server=cluster.endpoint.url,
            kwok_version=kwok_version,
        )

    def require_usable(self) -> None:
        """Raises KilonodeError for a cluster that does not answer or has a kwok, and for missing rights."""
        self._require_answer()
        rights = needed_rights(self.home.namespace, real_nodes=bool(self.settings.real_nodes))
        refuse_missing(
            run_bulk(lambda bulk: missing_rights(bulk, rights), self.endpoint), context=self.settings.context
        )
        nodes: list[_Node] = run_bulk(lambda bulk: _all(bulk, "/api/v1/nodes", _Node), self.endpoint)
        deployments: list[_Deployment] = run_bulk(
            lambda bulk: _all(bulk, "/apis/apps/v1/deployments", _Deployment), self.endpoint
        )
        refuse_kwok(
            [node.metadata.name for node in nodes if node.is_kwoks],
            [f"{each.metadata.namespace}/{each.metadata.name}" for each in deployments if each.is_kwok],
            context=self.settings.context,
        )
        self._require_real_nodes([node.metadata.name for node in nodes])

    def _require_answer(self) -> None:
        where = f"--context {self.settings.context}"
        try:
            status, body = self.endpoint.get("/version", timeout_s=ANSWER_TIMEOUT_S)
        except OSError as error:
            raise KilonodeError(
                f"the cluster does not answer at {self.endpoint.url}: {error}",
                where=where,
                remedy="see whether `kubectl --context NAME get nodes` works from this machine",
            ) from error
        if status != 200:
            raise KilonodeError(
                f"the cluster refused to answer: {status} {body[:200].decode(errors='replace')}",
                where=where,
                remedy="see whether the credentials of this context are still good",
            )

    def _require_real_nodes(self, known: list[str]) -> None:
        unknown = [name for name in self.settings.real_nodes if name not in known]
        if unknown:
            raise BadInputError(
                f"the cluster has no node {', '.join(unknown)}",
                where="--real-node",
                remedy=f"name some of: {', '.join(known[:20])}",
            )

    @property
    def version(self) -> str:
        return self._server_version

    @cached_property
    def _server_version(self) -> str:
        _, body = self.endpoint.get("/version", timeout_s=ANSWER_TIMEOUT_S)
        git_version = msgspec.json.decode(body, type=_Version).git_version
        # Some vendors add a build, such as v1.33.4-gke.1134000 or v1.33.1+k3s1.
        return git_version.removeprefix("v").split("-")[0].split("+")[0]

    @property
    def kubeconfig(self) -> Path:
        return Path(self.settings.kubeconfig)

    @cached_property
    def endpoint(self) -> ApiEndpoint:
        return ApiEndpoint.from_kubeconfig(self.kubeconfig, context=self.settings.context)

    @property
    def budget(self) -> LeaseBudget:
        return self._budget

    @property
    def lost(self) -> tuple[str, ...]:
        """Nothing: one that does not answer may be back, and says so at the next request."""
        return ()

    def components(self) -> tuple[Component, ...]:
        """kube-apiserver, as it calls itself, and the kwok that was brought."""
        return tuple(
            Component(name=name, version=version, source=source, toolchain="", sha256="")
            for name, version, source in (
                ("kube-apiserver", self.version, f"context {self.settings.context}"),
                ("kwok", self._kwok_version, "registry.k8s.io"),
            )
        )

    def unready_nodes(self) -> int | None:
        """None: the node controller's own metrics are out of reach."""
        return None

    def labels_of(self, index: int) -> dict[str, str]:
        """What the fake with this index is labelled with."""
        return fake_labels(self.home, self.sharding, index)

    def serve_fleet(self, nodes: int, on_done: Callable[[int], object] = int) -> None:
        """Have a kwok for each shard of a fleet of ``nodes``, Ready when this returns.

        ``on_done`` hears how many are. A smaller fleet keeps those that there are.
        """
        self._budget = production_budget(nodes)
        wanted = range(self._shards, self.sharding.shards(nodes))
        path = deployments_path(self.home)
        self._post(
            (
                path,
                kwok_deployment(
                    self.home,
                    shard,
                    run=self.run_id,
                    version=self._kwok_version,
                    budget=self._budget,
                    sharding=self.sharding,
                ),
            )
            for shard in wanted
        )
        self._shards = max(self._shards, wanted.stop)
        last: list[_Deployment] = []

        def ready() -> bool | None:
            selector = f"{RUN_LABEL}={self.run_id}"
            last[:] = run_bulk(lambda bulk: _all(bulk, path, _Deployment, selector), self.endpoint)
            up = sum(each.status.ready_replicas > 0 for each in last)
            on_done(up)
            return up >= self._shards or None

        wait_until(
            ready,
            what=f"kwok running in the cluster ({self._shards} Deployments)",
            timeout_s=KWOK_TIMEOUT_S,
            describe=lambda: "; ".join(_complaint(each) for each in last if not each.status.ready_replicas),
            remedy=f"look at its pods: kubectl --context {self.settings.context} -n {self.name} "
            f"describe deployment {shard_name(0)}",
        )

    def _post(self, objects: Any) -> None:
        async def send(bulk: Bulk) -> None:
            for path, body in objects:
                await bulk.request(Call("POST", path, msgspec.json.encode(body)))

        run_bulk(send, self.endpoint)


def refuse_kwok(nodes: list[str], controllers: list[str], *, context: str) -> None:
    """Raises KilonodeError for a cluster that somebody has fakes in already: a kwok takes the others'."""
    if not nodes and not controllers:
        return
    parts = []
    if nodes:
        parts.append(f"{len(nodes):,} kwok nodes ({', '.join(nodes[:3])}{', ...' if len(nodes) > 3 else ''})")
    if controllers:
        parts.append(f"a kwok controller ({', '.join(controllers[:3])})")
    raise KilonodeError(
        f"the cluster has {' and '.join(parts)} already",
        where=f"--context {context}",
        remedy="remove them, with `kilonode clean` where an earlier run left them, or use another cluster",
    )


def _complaint(deployment: _Deployment) -> str:
    said = [str(each.get("message", "")) for each in deployment.status.conditions]
    return f"{deployment.metadata.name}: {' '.join(said) or 'nothing yet'}"


async def _all(bulk: Bulk, path: str, item: type[Any], selector: str = "") -> list[Any]:
    found = []
    async for page in bulk.pages(path, item, selector=selector):
        found += page
    return found
