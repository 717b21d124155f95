"""The warning that nobody gives: what a running cluster's Services ask of its nodes, and what is left.

Read are Services, EndpointSlices, Nodes, and kube-proxy's DaemonSet and ConfigMap where it has these; lists
in pages, and of each object only what is counted. Nothing is written. What comes out is only as good as the
model: that of another version of kube-proxy says nothing, so where there is none the answer is *unknown*.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import yaml

from framework.analysis.forecast import Colour, Endurance, Load, Model, colour, endurance_of, needed
from framework.answers.answer import Answer
from framework.cluster import ApiEndpoint, ApiError, Bulk, Call, ExistingSettings, run_bulk
from framework.errors import BadInputError, KilonodeError
from framework.outcome import Record
from framework.units import GIB, parse_bytes
from framework.versioned_file import now_utc, this_command

FORMAT: Final = 1
GROUP_BYTES: Final = GIB // 2
"""Nodes whose memory is the same to this count as alike, by the smallest of them."""
SERVICES_PATH: Final = "/api/v1/services"
SLICES_PATH: Final = "/apis/discovery.k8s.io/v1/endpointslices"
NODES_PATH: Final = "/api/v1/nodes"
PROXY_PATH: Final = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy"
PROXY_CONFIG_PATH: Final = "/api/v1/namespaces/kube-system/configmaps/kube-proxy"
_SERVICE_LABEL: Final = "kubernetes.io/service-name"


class _Metadata(msgspec.Struct):
    name: str
    namespace: str = ""
    labels: dict[str, str] = {}


class _ServiceSpec(msgspec.Struct, rename="camel"):
    cluster_ip: Annotated[str, msgspec.Meta()] = msgspec.field(name="clusterIP", default="")
    type: str = "ClusterIP"
    ports: list[Any] = []


class Service(msgspec.Struct):
    """Of a Service, what kube-proxy goes by."""

    metadata: _Metadata
    spec: _ServiceSpec

    @property
    def is_proxied(self) -> bool:
        return self.spec.cluster_ip not in {"", "None"} and self.spec.type != "ExternalName"


class _Conditions(msgspec.Struct):
    ready: bool | None = None


class _Endpoint(msgspec.Struct):
    conditions: _Conditions = msgspec.field(default_factory=_Conditions)


class Slice(msgspec.Struct, rename="camel"):
    """Of an EndpointSlice, what kube-proxy counts."""

    metadata: _Metadata
    address_type: str
    endpoints: list[_Endpoint] | None = None
    ports: list[Any] | None = None

    @property
    def pairs(self) -> int:
        """Endpoints that take traffic, once for each port."""
        ready = sum(each.conditions.ready is not False for each in self.endpoints or ())
        return ready * len(self.ports or ())


class _Status(msgspec.Struct):
    capacity: dict[str, str] = {}


class Node(msgspec.Struct):
    """Of a Node, how much memory it has."""

    metadata: _Metadata
    status: _Status = msgspec.field(default_factory=_Status)


class NodeGroup(Record, frozen=True, kw_only=True):
    """``nodes`` nodes with this memory, or half a GiB more at most."""

    memory_bytes: int
    nodes: int


class ClusterCounts(Record, frozen=True, kw_only=True):
    """What a cluster has: ``services`` with a ClusterIP, their ports, and the endpoints of each port.

    ``mode`` is kube-proxy's, empty where its ConfigMap can't be read. ``kube_proxy_tag`` is that of its
    DaemonSet's image, empty without one.
    """

    services: int
    service_ports: int
    endpoints: int
    endpoints_by_family: dict[str, int]
    largest_service: str
    largest_service_endpoints: int
    nodes: int
    groups: tuple[NodeGroup, ...]
    kube_proxy_tag: str
    mode: str

    @property
    def kube_proxy(self) -> str:
        """The version by the tag of Kubernetes' own image; empty for another's build, whose tag says more."""
        version = self.kube_proxy_tag.removeprefix("v")
        return version if version.count(".") == 2 and version.replace(".", "").isdecimal() else ""

    @property
    def load(self) -> Load:
        return Load(endpoints=self.endpoints, service_ports=self.service_ports)


class GroupWarning(Record, frozen=True, kw_only=True):
    """How nodes of one size stand, and at how many nodes the cluster is too large for them.

    ``nodes_red`` and its neighbours are with endpoints growing as nodes do; None: beyond all bounds.
    """

    group: NodeGroup
    colour: Colour
    need_bytes: int | None
    need_bytes_high: int | None
    endpoints_red: Endurance | None

    def nodes_at(self, endpoints: int | None, counts: ClusterCounts) -> int | None:
        if endpoints is None or not counts.endpoints:
            return None
        return endpoints * counts.nodes // counts.endpoints


class LiveWarning(Answer, frozen=True, kw_only=True):
    """The answer. ``unknown`` says why there is no colour; empty where there is one."""

    context: str
    counts: ClusterCounts
    kube_proxy: str
    ballast_bytes: int
    groups: tuple[GroupWarning, ...]
    unknown: str

    @property
    def colour(self) -> Colour:
        """The worst of all groups."""
        found = {group.colour for group in self.groups}
        order: tuple[Colour, ...] = ("red", "unknown", "amber", "green")
        return next((each for each in order if each in found), "unknown")


def read_counts(settings: ExistingSettings) -> ClusterCounts:
    """Count what is in a cluster. Raises KilonodeError where it does not answer or refuses a right."""
    endpoint = ApiEndpoint.from_kubeconfig(Path(settings.kubeconfig), context=settings.context)

    async def read(bulk: Bulk) -> ClusterCounts:
        services = [each async for page in bulk.pages(SERVICES_PATH, Service) for each in page]
        slices = [each async for page in bulk.pages(SLICES_PATH, Slice) for each in page]
        nodes = [each async for page in bulk.pages(NODES_PATH, Node) for each in page]
        return counted(
            services,
            slices,
            nodes,
            kube_proxy_tag=image_tag(await _maybe(bulk, PROXY_PATH)),
            mode=proxy_mode(await _maybe(bulk, PROXY_CONFIG_PATH)),
        )

    try:
        found: ClusterCounts = run_bulk(read, endpoint)
    except ApiError as error:
        if error.status in {401, 403}:
            raise KilonodeError(
                f"the cluster refuses to list what is counted: {error.what}",
                where=error.where,
                remedy="the user of the context needs get and list of services, nodes and "
                "endpointslices.discovery.k8s.io",
            ) from error
        if not error.status:
            raise KilonodeError(
                f"the cluster does not answer at {endpoint.url}: {error.what}",
                where=f"--context {settings.context}",
                remedy="see whether `kubectl --context NAME get nodes` works from this machine",
            ) from error
        raise
    return found


async def _maybe(bulk: Bulk, path: str) -> Mapping[str, Any]:
    """An object that not every cluster has, and not every user may read."""
    try:
        found: Mapping[str, Any] = msgspec.json.decode(await bulk.request(Call("GET", path)))
    except ApiError as error:
        if error.status in {403, 404}:
            return {}
        raise
    return found


def counted(
    services: Sequence[Service],
    slices: Sequence[Slice],
    nodes: Sequence[Node],
    *,
    kube_proxy_tag: str,
    mode: str,
) -> ClusterCounts:
    """The counts of what was read."""
    proxied = {(each.metadata.namespace, each.metadata.name): each for each in services if each.is_proxied}
    by_service: Counter[tuple[str, str]] = Counter()
    by_family: Counter[str] = Counter()
    for each in slices:
        name = (each.metadata.namespace, each.metadata.labels.get(_SERVICE_LABEL, ""))
        if name in proxied:
            by_service[name] += each.pairs
            by_family[each.address_type] += each.pairs
    (largest, most), *_ = by_service.most_common(1) or [(("", ""), 0)]
    return ClusterCounts(
        services=len(proxied),
        service_ports=sum(len(each.spec.ports) for each in proxied.values()),
        endpoints=sum(by_service.values()),
        endpoints_by_family=dict(by_family),
        largest_service="/".join(largest) if most else "",
        largest_service_endpoints=most,
        nodes=len(nodes),
        groups=tuple(_groups(nodes)),
        kube_proxy_tag=kube_proxy_tag,
        mode=mode,
    )


def _groups(nodes: Sequence[Node]) -> Iterator[NodeGroup]:
    """By memory, smallest first; nodes that do not say how much they have count for nothing."""
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for node in nodes:
        try:
            memory_bytes = parse_bytes(node.status.capacity.get("memory", ""))
        except BadInputError:
            continue
        groups[memory_bytes // GROUP_BYTES].append(memory_bytes)
    for _, members in sorted(groups.items()):
        yield NodeGroup(memory_bytes=min(members), nodes=len(members))


def image_tag(daemonset: Mapping[str, Any]) -> str:
    """``v1.35.0`` of kube-proxy's image ``registry.k8s.io/kube-proxy:v1.35.0``; empty without one."""
    try:
        image = str(daemonset["spec"]["template"]["spec"]["containers"][0]["image"])
    except (KeyError, IndexError, TypeError):
        return ""
    _, _, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
    return tag


def proxy_mode(config_map: Mapping[str, Any]) -> str:
    """kube-proxy's mode by its ConfigMap, ``iptables`` where that leaves it open; empty without one."""
    try:
        text = config_map["data"]["config.conf"]
        found = yaml.safe_load(text)
        return str(found.get("mode") or "iptables")
    except (KeyError, TypeError, AttributeError, yaml.YAMLError):
        return ""


def warn(
    counts: ClusterCounts, models: Sequence[Model], *, kube_proxy: str, ballast_bytes: int, context: str
) -> LiveWarning:
    """What ``models`` say of ``counts``; ``kube_proxy`` goes before the version that was read."""
    version = kube_proxy or counts.kube_proxy
    model = next((each for each in models if each.kube_proxy == version), None)
    unknown = _no_model(counts, version, model, models)
    if unknown:
        model = None
    return LiveWarning(
        format=FORMAT,
        made_utc=now_utc(),
        command=this_command(),
        context=context,
        counts=counts,
        kube_proxy=version,
        ballast_bytes=ballast_bytes,
        groups=tuple(_warning(group, model, counts.load, ballast_bytes) for group in counts.groups),
        unknown=unknown or _distrusted(counts, model),
    )


def _no_model(counts: ClusterCounts, version: str, model: Model | None, models: Sequence[Model]) -> str:
    if counts.mode not in {"", "nftables"}:
        return f"kube-proxy runs in {counts.mode} mode, and models are of nftables mode"
    if not version and counts.kube_proxy_tag:
        return (
            f"kube-proxy's image has the tag {counts.kube_proxy_tag}, no version of Kubernetes' own: "
            "give the one that it is a build of with --kube-proxy"
        )
    if not version:
        return "the version of kube-proxy can't be read from its DaemonSet's image: give --kube-proxy"
    if model is None:
        known = ", ".join(each.kube_proxy for each in models) or "none"
        return (
            f"there is no model of kube-proxy {version} (there are {known}): make one with `kilonode "
            f"forecast --kube-proxy {version} --json FILE` and give it with --model FILE"
        )
    return ""


def _distrusted(counts: ClusterCounts, model: Model | None) -> str:
    """Why a model that fits says nothing here."""
    if not counts.groups:
        return "no node says how much memory it has"
    need = needed(model, counts.load) if model is not None else None
    if need is None:
        return "the model lacks a part of what a node takes"
    if need.distrust:
        return f"the model is not to be trusted at so many endpoints: {'; '.join(need.distrust)}"
    return ""


def _warning(group: NodeGroup, model: Model | None, load: Load, ballast_bytes: int) -> GroupWarning:
    need = needed(model, load) if model is not None else None
    return GroupWarning(
        group=group,
        colour=colour(model, load, memory_bytes=group.memory_bytes, ballast_bytes=ballast_bytes),
        need_bytes=round(need.value) if need is not None else None,
        need_bytes_high=round(need.high) if need is not None else None,
        endpoints_red=None
        if model is None
        else endurance_of(
            model,
            memory_bytes=group.memory_bytes,
            ballast_bytes=ballast_bytes,
            service_ports=load.service_ports,
        ),
    )
