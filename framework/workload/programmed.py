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
from framework.outcome import Family, Programmed
from framework.spec import ManyServicesSpec, ServiceSpec
from framework.workload.manifests import sentinel


def programmed(spec: ServiceSpec | ManyServicesSpec, *, node_zone: str = REAL_NODE_ZONE) -> Programmed:
    """What kube-proxy on a node in ``node_zone``, without an endpoint of its own, makes of a workload."""
    if isinstance(spec, ManyServicesSpec):
        return Programmed(
            families=("IPv4",),
            endpoints_logged=spec.proxy_endpoints,
            endpoints=spec.proxy_endpoints,
            service_ports=spec.count * len(spec.ports),
        )
    if spec.headless:
        return programmed(sentinel(spec), node_zone=node_zone)
    families: tuple[Family, ...] = ("IPv4", "IPv6") if spec.dual_stack else ("IPv4",)
    service_ports = len(spec.ports) * spec.services * len(families)
    return Programmed(
        families=families,
        endpoints_logged=spec.proxy_endpoints,
        endpoints=_reachable(spec, node_zone) * service_ports,
        service_ports=service_ports,
    )


def _reachable(spec: ServiceSpec, node_zone: str) -> int:
    """How many of the endpoints a node without one of its own may send to."""
    if spec.internal_traffic_policy == "Local":
        return 0
    if spec.traffic_distribution is None:
        return spec.endpoints
    return sum(zone(index) == node_zone for index in range(spec.endpoints)) or spec.endpoints
