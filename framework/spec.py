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
OOM_SCORE_MIN: Final = -1000
OOM_SCORE_MAX: Final = 1000
"""Bounds of oom_score_adj (proc(5))."""
_BALLAST_NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,13}[a-z0-9])?", re.ASCII)
"""A DNS label that fits comm, the name of a process in the kernel log (15 characters)."""
_NODE_COMMS: Final = frozenset(
    {"containerd", "containerd-shim", "dd", "kube-proxy", "kubelet", "nft", "pause", "runc", "sh", "sleep"}
)

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


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what is asked."""


BallastKind = Literal["system", "guaranteed", "burstable", "besteffort"]
"""What a ballast stands for: a system daemon, or a pod of one of the three QoS classes."""

QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]
_QOS: Final[dict[BallastKind, QosClass]] = {
    "guaranteed": "Guaranteed",
    "burstable": "Burstable",
    "besteffort": "BestEffort",
}

Content = Literal["anonymous", "page_cache"]
"""``anonymous``: written once, never given back. ``page_cache``: a file that is read again each second, which
the kernel may reclaim and then has to read again."""

BallastForm = Literal["auto", "pod", "process"]
"""``pod``: a real pod that the node's kubelet runs, in a cgroup of its class, and starts again when it is
killed. ``process``: a process with the oom_score_adj of what it stands for. ``auto``: a pod where it stands
for one, pods can run on this machine, and no OOM policy asks for a score that kubelet would not give."""

DAEMON_NAMES: Final = ("containerd", "kubelet", "kube-proxy")
"""The node's own daemons, in the order of their start; nft runs as kube-proxy's child."""


class Ballast(Spec, frozen=True, kw_only=True):
    """Memory that something else on the node holds, charged to the node.

    ``name`` is what the kernel log calls its process (15 characters at most). ``request_bytes`` is what a
    Burstable pod requests, half of its memory unless given: its oom_score_adj follows from it. A pod costs
    some 4 MiB for its shim and 1.5 MiB of kernel memory beside what it holds.
    """

    name: str
    kind: BallastKind
    memory_bytes: int
    content: Content = "anonymous"
    request_bytes: int | None = None
    form: BallastForm = "auto"

    def __post_init__(self) -> None:
        if _BALLAST_NAME.fullmatch(self.name) is None or self.name in _NODE_COMMS:
            raise BadInputError(
                f"{self.name!r} can't name a ballast",
                where="ballast",
                remedy="give 15 small letters, digits and dashes at most, and no name of a daemon",
            )
        if self.form == "pod" and self.kind == "system":
            raise BadInputError(
                f"{self.name} stands for a system daemon and can't be a pod",
                where="ballast",
                remedy='give form="process", or a kind of pod',
            )
        if self.memory_bytes <= 0:
            raise BadInputError(
                f"{self.name} holds {self.memory_bytes} bytes", where="ballast", remedy="give more than 0"
            )
        if self.request_bytes is not None and not 0 <= self.request_bytes <= self.memory_bytes:
            raise BadInputError(
                f"{self.name} requests {self.request_bytes} bytes of {self.memory_bytes}",
                where="ballast",
                remedy="give a request from 0 to its memory",
            )

    @property
    def requested_bytes(self) -> int:
        return self.memory_bytes // 2 if self.request_bytes is None else self.request_bytes

    @property
    def qos(self) -> QosClass:
        """The class of the pod that it stands for. Raises KeyError for a system daemon."""
        return _QOS[self.kind]


OomPolicyName = Literal["production", "flat"]
OomPolicy = OomPolicyName | dict[str, int]
"""Who is killed first: ``production``'s oom_score_adj; ``flat``, the same for all, so that size alone
decides; or production's with some scores given by name of the daemon or ballast (``{"kubelet": 0}``)."""

RestartPolicy = Literal["none", "production"]
"""What becomes of a daemon that ended: nothing, or it starts again as in production, with its back-off."""


class RealNodeSpec(Spec, frozen=True, kw_only=True):
    """A real node: ``memory_bytes`` limits kubelet, containerd, kube-proxy, nft and the ballast together.

    ``kube_proxy`` is an exact version; ``kube_proxy_config`` is merged over the KubeProxyConfiguration that
    the framework writes. ``ballast_profile`` names the profile that ``ballast`` is of, if it is of one.
    ``text`` says who pays for the executables' pages: the node, as on a machine of its own (``charged``), or
    the host, which keeps them in memory for all (``host``). With ``client`` one asks the Service through the
    node's rules, 50 times a second; the node pays nothing for it. ``capture_transactions``
    keeps what kube-proxy hands to nft: such a node is a twin of the one that is measured.
    """

    memory_bytes: int
    kube_proxy: str
    kube_proxy_config: dict[str, Any] = msgspec.field(default_factory=dict)
    ballast: tuple[Ballast, ...] = ()
    ballast_profile: str = ""
    text: TextAccount = "charged"
    oom_policy: OomPolicy = "production"
    restart: RestartPolicy = "none"
    client: bool = True
    capture_transactions: bool = False

    def __post_init__(self) -> None:
        require_version(self.kube_proxy, where="kube_proxy")
        if self.memory_bytes < MEMORY_BYTES_MIN:
            raise BadInputError(
                f"a node with {mib(self.memory_bytes)} MiB can't start its own daemons",
                where="memory",
                remedy=f"give at least {mib(MEMORY_BYTES_MIN)} MiB",
            )
        if self.ballast_bytes >= self.memory_bytes:
            raise BadInputError(
                f"ballast {mib(self.ballast_bytes)} MiB does not fit a node of {mib(self.memory_bytes)} MiB",
                where="ballast",
                remedy="give less ballast or more memory",
            )
        names = [ballast.name for ballast in self.ballast]
        if len(set(names)) < len(names):
            raise BadInputError(
                f"ballast {', '.join(names)} has one name twice", where="ballast", remedy="name each once"
            )
        pods = {ballast.name for ballast in self.pods}
        if pods and self.oom_policy == "flat":
            raise BadInputError(
                f"kubelet decides on the scores of {', '.join(sorted(pods))}",
                where="oom_policy",
                remedy='give the ballast form="process"',
            )
        if isinstance(self.oom_policy, dict):
            self._check_scores(self.oom_policy, known={*DAEMON_NAMES, *names} - pods)

    @staticmethod
    def _check_scores(scores: dict[str, int], *, known: set[str]) -> None:
        unknown = sorted(set(scores) - known)
        if unknown or not scores:
            raise BadInputError(
                f"an OOM policy names {', '.join(unknown) or 'nobody'}",
                where="oom_policy",
                remedy=f"name some of {', '.join(sorted(known))}; nft has what kube-proxy has",
            )
        wrong = {name: score for name, score in scores.items() if not OOM_SCORE_MIN < score <= OOM_SCORE_MAX}
        if wrong:
            raise BadInputError(
                f"oom_score_adj {wrong} is out of bounds",
                where="oom_policy",
                remedy=f"give {OOM_SCORE_MIN + 1} to {OOM_SCORE_MAX}: {OOM_SCORE_MIN} is never killed",
            )

    @property
    def pods(self) -> tuple[Ballast, ...]:
        """The ballast that real pods hold."""
        return tuple(ballast for ballast in self.ballast if ballast.form == "pod")

    @property
    def processes(self) -> tuple[Ballast, ...]:
        """The ballast that processes hold."""
        return tuple(ballast for ballast in self.ballast if ballast.form != "pod")

    @property
    def may_have_pods(self) -> bool:
        """Whether some ballast is a pod, or would be one where pods can run."""
        return any(self._form(ballast, pods_run=True) == "pod" for ballast in self.ballast)

    def settled(self, *, pods_run: bool) -> RealNodeSpec:
        """With ``auto`` ballast decided, on a machine where real pods can run or can't."""
        ballast = tuple(
            msgspec.structs.replace(each, form=self._form(each, pods_run=pods_run)) for each in self.ballast
        )
        return msgspec.structs.replace(self, ballast=ballast)

    def _form(self, ballast: Ballast, *, pods_run: bool) -> Literal["pod", "process"]:
        if ballast.form != "auto":
            return ballast.form
        named = isinstance(self.oom_policy, dict) and ballast.name in self.oom_policy
        as_process = ballast.kind == "system" or self.oom_policy == "flat" or named
        return "pod" if pods_run and not as_process else "process"

    @property
    def ballast_bytes(self) -> int:
        """What all ballast holds together."""
        return sum(ballast.memory_bytes for ballast in self.ballast)


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
