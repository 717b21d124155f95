"""What a node is to be programmed with: pure functions of a workload and the node's zone.

kube-proxy's log and its ruleset count differently. The log (``numEndpoints``) counts every endpoint that
kube-proxy knows of the Services that it proxies (``totalEndpoints`` in pkg/proxy/nftables/proxier.go and
pkg/proxy/iptables/proxier.go, 1.35.0 and 1.37.2). Policy and hints are applied after that, Service by Service
(``CategorizeEndpoints`` in pkg/proxy/topology.go), so the ruleset may name fewer, or none:

* ``internalTrafficPolicy: Local``: the node's own endpoints, and no real node has one. Then kube-proxy drops
  packets to the ClusterIP, for which there is an entry still.
* hints: the endpoints that are hinted for the node's zone; all of them where none is.
* headless: kube-proxy does not even watch such a Service or its slices. A sentinel that was created after it
  is all there is to see.
"""

from __future__ import annotations

from framework.fleet import REAL_NODE_ZONE, zone
from framework.outcome import Programmed
from framework.spec import ManyServicesSpec, ServiceSpec
from framework.workload.manifests import families, sentinel


def programmed(
    spec: ServiceSpec | ManyServicesSpec, *, node_zone: str = REAL_NODE_ZONE, applied: bool = True
) -> Programmed:
    """What kube-proxy on a node in ``node_zone``, without an endpoint of its own, makes of a workload.

    Of one that is not ``applied`` nothing may be left.
    """
    if isinstance(spec, ServiceSpec) and spec.headless:
        return programmed(sentinel(spec), node_zone=node_zone, applied=applied)
    ours = families(spec) if isinstance(spec, ServiceSpec) else ("IPv4",)
    if not applied:
        return Programmed(families=ours, endpoints_logged=0, endpoints=0, service_ports=0)
    service_ports = len(spec.ports) * len(spec.names) * len(ours)
    return Programmed(
        families=ours,
        endpoints_logged=spec.proxy_endpoints,
        endpoints=reachable(spec, node_zone=node_zone) * service_ports,
        service_ports=service_ports,
    )


def answering(
    spec: ServiceSpec | ManyServicesSpec, *, node_zone: str = REAL_NODE_ZONE, applied: bool = True
) -> int:
    """How many endpoints one client behind such a node meets that asks the first Service again and again."""
    if not applied:
        return 0
    found = reachable(spec, node_zone=node_zone)
    sticks = isinstance(spec, ServiceSpec) and spec.session_affinity == "ClientIP"
    return min(1, found) if sticks else found


def reachable(spec: ServiceSpec | ManyServicesSpec, *, node_zone: str = REAL_NODE_ZONE) -> int:
    """How many endpoints of one Service, in one family, such a node sends to.

    None of a headless one: who asks that by its name goes to its endpoints without kube-proxy.
    """
    if isinstance(spec, ManyServicesSpec):
        return spec.endpoints_each
    if spec.headless or spec.internal_traffic_policy == "Local":
        return 0
    if spec.traffic_distribution is None:
        return spec.endpoints
    return sum(zone(index) == node_zone for index in range(spec.endpoints)) or spec.endpoints
