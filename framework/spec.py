"""What was asked: typed, validated before anything is created, units in names."""

from __future__ import annotations

import re
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

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

ProxyMode = Literal["nftables", "iptables"]
Loader = Literal["nft", "iptables-restore"]
"""The program that kube-proxy hands its rules to, in each of its modes."""

Protocol = Literal["TCP", "UDP"]
SessionAffinity = Literal["None", "ClientIP"]
TrafficPolicy = Literal["Cluster", "Local"]
TrafficDistribution = Literal["PreferSameZone", "PreferClose"]
"""``PreferClose`` is what ``PreferSameZone`` was called before Kubernetes 1.34; they do the same."""

SERVICES_MAX: Final = 100_000
PORT_MAX: Final = 65_535


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what is asked. Raises BadInputError for a field that is not what its type says.

    msgspec looks at types only where it decodes, and scenarios are written without a type checker.
    """

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(type(self)):
            given = getattr(self, field.name)
            try:
                checked = msgspec.convert(given, field.type)
            except msgspec.ValidationError as error:
                raise BadInputError(
                    f"{given!r} is wrong here: {error}",
                    where=field.name,
                    remedy=f"give {_in_words(field.type)}",
                ) from error
            msgspec.structs.force_setattr(self, field.name, checked)


def _in_words(kind: Any) -> str:
    """A type as one would ask for it."""
    origin = get_origin(kind)
    if origin is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, get_args(kind)))
    if kind is NoneType:
        return "None"
    return str(kind).replace("typing.", "") if origin is not None else str(kind.__name__)


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
        super().__post_init__()
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
    the framework writes. ``proxy_mode`` is kube-proxy's. ``ballast_profile`` names the profile that
    ``ballast`` is of, if it is of one. ``text`` says who pays for the executables' pages: the node, as on a
    machine of its own (``charged``), or the host, which keeps them in memory for all (``host``). With
    ``client`` one asks the Service through the node's rules, 50 times a second; the node pays nothing for it.
    ``capture_transactions`` keeps what kube-proxy hands to nft: such a node is a twin of the one that is
    measured.
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
    proxy_mode: ProxyMode = "nftables"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_version(self.kube_proxy, where="kube_proxy")
        if self.memory_bytes < MEMORY_BYTES_MIN:
            raise BadInputError(
                f"a node with {mib(self.memory_bytes)} MiB can't start its own daemons",
                where="memory",
                remedy=f"give at least {mib(MEMORY_BYTES_MIN)} MiB",
            )
        self._check_proxy()
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

    def _check_proxy(self) -> None:
        if "mode" in self.kube_proxy_config:
            raise BadInputError(
                "the mode of kube-proxy decides what is observed",
                where="kube_proxy_config",
                remedy=f"give proxy_mode={self.kube_proxy_config['mode']!r} instead",
            )
        connection = self.kube_proxy_config.get("clientConnection")
        if isinstance(connection, dict) and "kubeconfig" in connection:
            # It may name programs to run, and a configuration may be a stranger's, from a bundle.
            raise BadInputError(
                f"kube-proxy can't be given the kubeconfig {connection['kubeconfig']!r}",
                where="kube_proxy_config",
                remedy="leave clientConnection.kubeconfig out",
            )
        try:
            msgspec.json.encode(self.kube_proxy_config)
        except TypeError as error:
            raise BadInputError(
                f"it can't be written down for kube-proxy: {error}",
                where="kube_proxy_config",
                remedy="give what YAML has: text, numbers, lists and dictionaries of them",
            ) from error
        if self.capture_transactions and self.proxy_mode != "nftables":
            raise BadInputError(
                f"kube-proxy hands nothing to nft in {self.proxy_mode} mode",
                where="capture_transactions",
                remedy="leave proxy_mode at nftables",
            )

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
    def loader(self) -> Loader:
        """The program that kube-proxy hands its rules to."""
        return "nft" if self.proxy_mode == "nftables" else "iptables-restore"

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

    ``services`` that share the endpoints may stand beside it; the first is the one that is named. What a node
    makes of all this is ``framework.workload.programmed``.
    """

    name: str
    endpoints: int
    mode: EndpointMode
    ports: tuple[int, ...] = (80,)
    protocol: Protocol = "TCP"
    session_affinity: SessionAffinity = "None"
    dual_stack: bool = False
    services: int = 1
    internal_traffic_policy: TrafficPolicy = "Cluster"
    traffic_distribution: TrafficDistribution | None = None
    headless: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(self.endpoints, where="endpoints")
        require_ports(self.ports)
        if not 1 <= self.services <= SERVICES_MAX:
            raise BadInputError(
                f"{self.services} is outside 1 to {SERVICES_MAX:,}",
                where="services",
                remedy="give a count inside these bounds",
            )
        if self.dual_stack and self.mode != "endpointslices":
            raise BadInputError(
                f"fake nodes have IPv4 addresses only, so pods of the mode {self.mode} have no IPv6 endpoint",
                where="dual_stack",
                remedy='give mode="endpointslices"',
            )
        if self.headless and (self.internal_traffic_policy == "Local" or self.traffic_distribution):
            raise BadInputError(
                "kube-proxy passes over a headless Service, whatever else it asks for",
                where="headless",
                remedy="give one remedy at a time",
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
        """As kube-proxy counts them in each IP family: once for each port and Service."""
        return self.endpoints * len(self.ports) * self.services

    @property
    def asked(self) -> int:
        """What its size was given in: endpoints."""
        return self.endpoints

    @property
    def names(self) -> tuple[str, ...]:
        """Of all Services, the measured one first."""
        return (self.name, *(f"{self.name}-{number}" for number in range(2, self.services + 1)))

    @property
    def shape(self) -> str:
        """In which it differs from one TCP Service of one port, in a few words; empty where in nothing."""
        words = (
            f"{len(self.ports)} ports" if len(self.ports) > 1 else "",
            self.protocol if self.protocol != "TCP" else "",
            f"affinity {self.session_affinity}" if self.session_affinity != "None" else "",
            "dual-stack" if self.dual_stack else "",
            f"{self.services:,} Services" if self.services > 1 else "",
            f"policy {self.internal_traffic_policy}" if self.internal_traffic_policy != "Cluster" else "",
            self.traffic_distribution or "",
            "headless" if self.headless else "",
        )
        return ", ".join(filter(None, words))


class ManyServicesSpec(Spec, frozen=True, kw_only=True):
    """``count`` Services with ``endpoints_each`` endpoints of their own each; slices written directly."""

    name: str
    count: int
    endpoints_each: int
    ports: tuple[int, ...] = (80,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.count <= SERVICES_MAX:
            raise BadInputError(
                f"{self.count} is outside 1 to {SERVICES_MAX:,}",
                where="count",
                remedy="give a count inside these bounds",
            )
        require_count(self.endpoints_each, where="endpoints_each")
        require_count(self.endpoints, where="count x endpoints_each")
        require_ports(self.ports)

    @property
    def protocol(self) -> Protocol:
        return "TCP"

    @property
    def mode(self) -> EndpointMode:
        return "endpointslices"

    @property
    def endpoints(self) -> int:
        """Of all Services together."""
        return self.count * self.endpoints_each

    @property
    def proxy_endpoints(self) -> int:
        """As kube-proxy counts them: once for each port."""
        return self.endpoints * len(self.ports)

    @property
    def asked(self) -> int:
        """What its size was given in: Services."""
        return self.count

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}-{number:05d}" for number in range(self.count))

    @property
    def shape(self) -> str:
        ports = f", {len(self.ports)} ports" if len(self.ports) > 1 else ""
        return f"{self.count:,} Services x {self.endpoints_each:,}{ports}"


def endpoint_mode(
    asked: AskedMode, endpoints: int, *, dual_stack: bool = False, can_adopt: bool = True
) -> EndpointMode:
    """What ``asked`` means for a Service with ``endpoints`` endpoints.

    ``can_adopt``: the DaemonSet controller can be paused. Raises BadInputError for the adopted mode without,
    and for no number of endpoints.
    """
    require_count(endpoints, where="endpoints")
    if asked == "adopted" and not can_adopt:
        raise BadInputError(
            "pods can't be adopted in a cluster that was there before: its DaemonSet controller can't be "
            "paused, and would create pods of its own meanwhile",
            where="mode",
            remedy="give native or endpointslices",
        )
    if asked != "auto":
        return asked
    if dual_stack:
        return "endpointslices"
    if endpoints <= NATIVE_ENDPOINTS_MAX:
        return "native"
    return "adopted" if can_adopt and endpoints <= ADOPTED_ENDPOINTS_MAX else "endpointslices"


def require_version(version: str, *, where: str) -> str:
    """``version``, which must be exact (``1.35.0``), without a leading ``v``; else BadInputError."""
    bare = str(version).removeprefix("v")
    if VERSION.fullmatch(bare) is None:
        raise BadInputError(
            f"{version!r} is no exact version", where=where, remedy="give three numbers, such as 1.35.0"
        )
    return bare


def version_order(version: str) -> tuple[int, ...]:
    """Sorts versions, oldest first; what is no number in one counts for nothing."""
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def require_ports(ports: tuple[int, ...]) -> None:
    """Raises BadInputError unless there is a port, each once, and all of them are ports."""
    if not ports or len(set(ports)) < len(ports):
        raise BadInputError(
            f"{ports} are no distinct ports", where="ports", remedy="give one port or more, each once"
        )
    for port in ports:
        if not 1 <= port <= PORT_MAX:
            raise BadInputError(
                f"{port} is outside 1 to {PORT_MAX}", where="ports", remedy="give ports inside these bounds"
            )


def require_count(count: int, *, where: str) -> int:
    """``count`` if it is a whole number from 1 to a million. Raises BadInputError otherwise."""
    if not isinstance(count, int) or not 1 <= count <= NODES_MAX:
        raise BadInputError(
            f"{count!r} is outside 1 to {NODES_MAX:,}", where=where, remedy="give a count inside these bounds"
        )
    return count
