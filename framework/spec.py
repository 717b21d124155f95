"""What was asked: typed, validated before anything is created, units in names."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import msgspec

from framework.errors import BadInputError
from framework.units import MIB, mib

MEMORY_BYTES_MIN: Final = 64 * MIB
"""Below this kubelet and containerd alone do not start (about 120 MiB resident together)."""
NODES_MAX: Final = 1_000_000
VERSION: Final = re.compile(r"\d+\.\d+\.\d+", re.ASCII)

NATIVE_ENDPOINTS_MAX: Final = 1_000
"""What ``auto`` lets the real DaemonSet controller create: 70 pods/s on 2 CPUs, fewer the larger the
fleet."""
ADOPTED_ENDPOINTS_MAX: Final = 10_000
"""What ``auto`` makes pods for: on 2 CPUs 100,000 pods take five minutes, and the real controller one for
the slices of each Service (``make bench ARGS="endpoints --nodes 100k"``)."""

EndpointMode = Literal["native", "adopted", "endpointslices"]
"""``native``: real DaemonSet, real controllers, pods made Ready by kwok. ``adopted``: the same, with pods
created and made Ready by the framework and adopted by the real controller. ``endpointslices``: slices written
by the framework, no pods."""

AskedMode = Literal["auto", "native", "adopted", "endpointslices"]
"""``auto``: the most faithful one that a size affords."""

TextAccount = Literal["charged", "host"]

QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]

BallastContent = Literal["anonymous", "page_cache"]
"""``anonymous``: memory that can only be had by killing. ``page_cache``: a file that is read once a second,
whose pages the kernel takes away under pressure and the pod reads again."""

POD_NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,13}[a-z0-9])?", re.ASCII)
"""A DNS label that fits comm, the name of a process in the kernel log (15 characters)."""
NODE_COMMS: Final = frozenset(
    {"containerd", "containerd-shim", "kube-proxy", "kubelet", "nft", "pause", "runc"}
)
_GUARANTEED_OOM_SCORE_ADJ: Final = -997
_BEST_EFFORT_OOM_SCORE_ADJ: Final = 1000
_OOM_SCORE_RANGE: Final = 1000


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what is asked."""


class BallastPod(Spec, frozen=True, kw_only=True):
    """A real pod of a real node that holds ``memory_bytes``, as its neighbours in production do.

    ``name`` is what its process is called in the kernel log. ``request_bytes`` is the memory that a Burstable
    pod requests, by default all that it holds.
    """

    name: str
    qos: QosClass
    memory_bytes: int
    content: BallastContent = "anonymous"
    request_bytes: int | None = None

    def __post_init__(self) -> None:
        if POD_NAME.fullmatch(self.name) is None or self.name in NODE_COMMS:
            raise BadInputError(
                f"{self.name!r} can't be the name of a ballast pod",
                where="pods",
                remedy="give 15 letters, digits and dashes at most, other than the name of a daemon",
            )
        if self.memory_bytes < 1 or (self.request_bytes is not None and self.request_bytes < 1):
            raise BadInputError(
                f"{self.name} can't hold or request nothing", where="pods", remedy="give 1 byte or more"
            )
        if self.request_bytes is not None and self.qos != "Burstable":
            raise BadInputError(
                f"{self.name} is {self.qos}: its class decides what it requests",
                where="pods",
                remedy="leave request_bytes out, or make the pod Burstable",
            )

    def oom_score_adj(self, capacity_bytes: int) -> int:
        """What kubelet gives its process on a machine of that size.

        GetContainerOOMScoreAdjust in pkg/kubelet/qos/policy.go of Kubernetes 1.37, for a pod of one
        container.
        """
        if self.qos == "Guaranteed":
            return _GUARANTEED_OOM_SCORE_ADJ
        if self.qos == "BestEffort":
            return _BEST_EFFORT_OOM_SCORE_ADJ
        requested = self.request_bytes or self.memory_bytes
        score = _OOM_SCORE_RANGE - _OOM_SCORE_RANGE * requested // capacity_bytes
        lowest = _OOM_SCORE_RANGE + _GUARANTEED_OOM_SCORE_ADJ
        return min(max(score, lowest), _BEST_EFFORT_OOM_SCORE_ADJ - 1)


class RealNodeSpec(Spec, frozen=True, kw_only=True):
    """A real node: ``memory_bytes`` limits kubelet, containerd, kube-proxy, nft and the ballast together.

    ``kube_proxy`` is an exact version; ``kube_proxy_config`` is merged over the KubeProxyConfiguration that
    the framework writes. ``ballast_bytes`` is anonymous memory held by a process of the node, ``pods`` are
    real pods that hold memory. ``text`` says who pays for the executables' pages: the node, as on a machine
    of its own (``charged``), or the host, which keeps them in memory for all (``host``).
    """

    memory_bytes: int
    kube_proxy: str
    kube_proxy_config: dict[str, Any] = msgspec.field(default_factory=dict)
    ballast_bytes: int = 0
    pods: tuple[BallastPod, ...] = ()
    text: TextAccount = "charged"

    def __post_init__(self) -> None:
        require_version(self.kube_proxy, where="kube_proxy")
        if self.memory_bytes < MEMORY_BYTES_MIN:
            raise BadInputError(
                f"a node with {mib(self.memory_bytes)} MiB can't start its own daemons",
                where="memory",
                remedy=f"give at least {mib(MEMORY_BYTES_MIN)} MiB",
            )
        if not 0 <= self.ballast_bytes < self.memory_bytes:
            raise BadInputError(
                f"ballast {mib(self.ballast_bytes)} MiB does not fit a node of {mib(self.memory_bytes)} MiB",
                where="ballast",
                remedy="give less ballast or more memory",
            )
        self._check_pods()

    def _check_pods(self) -> None:
        names = [pod.name for pod in self.pods]
        if len(set(names)) < len(names):
            raise BadInputError(
                f"two pods have one name: {', '.join(names)}",
                where="pods",
                remedy="name each pod differently",
            )
        held = self.ballast_bytes + sum(p.memory_bytes for p in self.pods if p.content == "anonymous")
        if held >= self.memory_bytes:
            raise BadInputError(
                f"pods and ballast hold {mib(held)} MiB, which does not fit a node of "
                f"{mib(self.memory_bytes)} MiB",
                where="pods",
                remedy="let them hold less, or give the node more memory",
            )
        requested = sum(p.request_bytes or p.memory_bytes for p in self.pods if p.qos != "BestEffort")
        if requested > self.memory_bytes:
            raise BadInputError(
                f"pods request {mib(requested)} MiB of a node of {mib(self.memory_bytes)} MiB",
                where="pods",
                remedy="let them request less: kubelet rejects what does not fit",
            )


class ServiceSpec(Spec, frozen=True, kw_only=True):
    """A DaemonSet Service with ``endpoints`` endpoints, made in the given mode.

    kube-proxy counts an endpoint once for each of the Service's ``ports``: ``proxy_endpoints`` in all.
    """

    name: str
    endpoints: int
    mode: EndpointMode
    ports: tuple[int, ...] = (80,)

    def __post_init__(self) -> None:
        require_count(self.endpoints, where="endpoints")
        if not self.ports or len(set(self.ports)) < len(self.ports):
            raise BadInputError(
                f"{self.ports} are no distinct ports",
                where="ports",
                remedy="give one port or more, each once",
            )

    @property
    def workload(self) -> str:
        """Name of the DaemonSet and label of its pods.

        The Service has the same name in every mode: kube-proxy writes it into each rule, and nft's memory
        grows with its length.
        """
        return f"{self.name}-{self.mode}"

    @property
    def proxy_endpoints(self) -> int:
        return self.endpoints * len(self.ports)


def endpoint_mode(asked: AskedMode, endpoints: int) -> EndpointMode:
    """What ``asked`` means for a Service with ``endpoints`` endpoints."""
    if asked != "auto":
        return asked
    if endpoints <= NATIVE_ENDPOINTS_MAX:
        return "native"
    return "adopted" if endpoints <= ADOPTED_ENDPOINTS_MAX else "endpointslices"


def require_version(version: str, *, where: str) -> str:
    """``version``, which must be exact (``1.35.0``), without a leading ``v``; else BadInputError."""
    bare = version.removeprefix("v")
    if VERSION.fullmatch(bare) is None:
        raise BadInputError(
            f"{version!r} is no exact version", where=where, remedy="give three numbers, such as 1.35.0"
        )
    return bare


def require_count(count: int, *, where: str) -> int:
    """``count`` if it is from 1 to a million. Raises BadInputError otherwise."""
    if not 1 <= count <= NODES_MAX:
        raise BadInputError(
            f"{count} is outside 1 to {NODES_MAX:,}", where=where, remedy="give a count inside these bounds"
        )
    return count
