"""Network namespaces, bridges and veth pairs, made with iproute2's batch mode.

One cluster owns one *cluster namespace*. It holds the node bridge and the whole control plane; real nodes
are further namespaces whose veth ends in that bridge; one veth leads to the host so that the framework
reaches the API server. Nothing of a cluster listens on the host, ports never collide between clusters, and
the host's FORWARD policy or bridge-nf-call-iptables can't cut the bridge, because it isn't the host's.

Addresses come from 198.18.0.0/15, which RFC 2544 sets aside for benchmarks of network devices: one /24 for
each cluster, chosen so that no route of the host knows it.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from framework import process
from framework.errors import MissingRequirementError

CLUSTER_RANGE: Final = ipaddress.ip_network("198.18.0.0/15")
CLUSTER_PREFIX: Final = 24
BRIDGE: Final = "nodes0"
BRIDGE_MAC: Final = "02:00:00:00:00:01"
"""Locally administered; every cluster has a bridge of its own, so one address serves all."""
NETNS_ROOT: Final = "/run/netns"
LINK_LOCAL_FIRST: Final = int(ipaddress.IPv6Address("fe80::"))
_CLONE_NEWNET: Final = 0x40000000
_FORWARDING: Final = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def ip_batch(lines: Sequence[str], *, netns: str | None = None) -> None:
    """Run iproute2 commands in one process, in ``netns`` or on the host. Raises CommandError."""
    argv = ["ip", "-batch", "-"]
    process.run(
        process.inside(argv, netns=netns),
        stdin=("\n".join(lines) + "\n").encode(),
        remedy="the kernel refused a link or address; see `ip -d link`",
    )


def add_netns(name: str) -> None:
    """Create a named network namespace with its loopback up."""
    process.run(["ip", "netns", "add", name], remedy="root is needed for network namespaces")
    ip_batch(["link set lo up"], netns=name)


def name_netns(name: str, pid: int) -> None:
    """Give the network namespace of a process a name; it lives as long as it has one, or a process."""
    process.run(["ip", "netns", "attach", name, str(pid)], remedy="root is needed for network namespaces")


def delete_netns(name: str) -> None:
    """Delete a named network namespace; one that is gone is fine."""
    if name in list_netns():
        process.run(["ip", "netns", "delete", name])


def list_netns() -> tuple[str, ...]:
    rows = json.loads(process.run(["ip", "-json", "netns", "list"]).stdout or b"[]")
    return tuple(row["name"] for row in rows)


def connect(address: tuple[str, int], *, netns: str | None, timeout_s: float) -> socket.socket:
    """A TCP connection from inside ``netns`` (None: this process's own namespace). Raises OSError.

    A socket stays in the namespace in which it was made; a thread that ends afterwards makes it, so that no
    other code ever runs in there.
    """
    if netns is None:
        return socket.create_connection(address, timeout=timeout_s)

    def inside() -> socket.socket:
        with Path(NETNS_ROOT, netns).open() as namespace:
            _setns(namespace.fileno())
        return socket.create_connection(address, timeout=timeout_s)

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(inside).result()


def _setns(descriptor: int) -> None:
    """setns(2) for the calling thread, CLONE_NEWNET; Python has it since 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


def delete_link(name: str, *, netns: str | None = None) -> None:
    """Delete a link of ``netns`` or of the host; one that is gone is fine.

    The kernel deletes those of a namespace some time after the namespace.
    """
    process.run(process.inside(["ip", "link", "delete", name], netns=netns), check=False)


def add_bridge(netns: str, *, address: str, prefix: int = CLUSTER_PREFIX) -> None:
    """The node bridge with ``address`` in ``netns``.

    Its MAC address is fixed: by itself a bridge takes the lowest of its ports', so that each node that comes
    or goes could change it, and everybody's ARP entry for the API server would be stale for half a minute.
    """
    ip_batch(
        [
            f"link add {BRIDGE} address {BRIDGE_MAC} type bridge",
            f"addr add {address}/{prefix} dev {BRIDGE}",
            f"link set {BRIDGE} up",
        ],
        netns=netns,
    )


def connect_host(netns: str, *, link: str, address: str, prefix: int = CLUSTER_PREFIX) -> None:
    """A veth from the host (``link`` with ``address``) to the bridge in ``netns``."""
    ip_batch(
        [
            f"link add {link} type veth peer name host0 netns {netns}",
            f"addr add {address}/{prefix} dev {link}",
            f"link set {link} up",
        ]
    )
    ip_batch([f"link set host0 master {BRIDGE} up"], netns=netns)


def connect_node(
    cluster_netns: str | None,
    node_netns: str,
    *,
    link: str,
    address: str,
    gateway: str,
    bridge: str = BRIDGE,
    prefix: int = CLUSTER_PREFIX,
) -> None:
    """A veth from the bridge (``link``) to the node's ``eth0`` with ``address`` and a default route.

    ``cluster_netns`` is where the bridge is; None: on the host.
    """
    ip_batch(
        [
            f"link add {link} type veth peer name eth0 netns {node_netns}",
            f"link set {link} master {bridge} up",
        ],
        netns=cluster_netns,
    )
    ip_batch(
        [
            f"addr add {address}/{prefix} dev eth0",
            "link set eth0 up",
            f"route add default via {gateway}",
        ],
        netns=node_netns,
    )


def has_ipv6() -> bool:
    return Path("/proc/sys/net/ipv6").is_dir()


def enable_ipv6(netns: str) -> None:
    """Let a namespace have IPv6 addresses; docker forbids them where its network has none."""
    _write_sysctls(netns, ["net/ipv6/conf/all/disable_ipv6"], "0")


def _write_sysctls(netns: str, keys: Sequence[str], value: str) -> None:
    process.run(
        process.inside(["tee", *(f"/proc/sys/{key}" for key in keys)], netns=netns),
        stdin=value.encode(),
        remedy="root is needed for sysctls",
    )


def own_range(netns: str, addresses: Network) -> None:
    """Make every address of a range the namespace's own, without adding any: it answers for all."""
    ip_batch([f"route add local {addresses} dev lo"], netns=netns)


def route(netns: str, addresses: Network, *, via: str) -> None:
    """Send what goes to ``addresses`` to the neighbour on the bridge whose IPv4 address is ``via``.

    An older such route is replaced.
    """
    hop = via if addresses.version == 4 else f"{link_local(via)} dev eth0"
    ip_batch([f"route replace {addresses} via {hop}"], netns=netns)


def add_link_local(netns: str, address: str) -> None:
    """Give ``eth0`` the link-local address that goes with its IPv4 ``address``; it may be there already.

    It is all that a neighbour needs to send IPv6 on, and gives a node no further address of its own.
    """
    ip_batch([f"addr replace {link_local(address)}/64 dev eth0 nodad"], netns=netns)


def link_local(address: str) -> ipaddress.IPv6Address:
    """A link-local address that no other has whose IPv4 address differs."""
    return ipaddress.IPv6Address(LINK_LOCAL_FIRST + int(ipaddress.IPv4Address(address)))


def connect_behind(node_netns: str, netns: str, *, link: str, subnets: Iterable[Network]) -> None:
    """A veth from a node (``link``) to ``netns`` behind it, whose default routes lead to the node.

    The node has the first address of each subnet and ``netns`` the second. The node forwards from then on, as
    any node with pods does.
    """
    near = [f"link add {link} type veth peer name eth0 netns {netns}"]
    far, forward = [], []
    for subnet in subnets:
        flag = " nodad" if subnet.version == 6 else ""
        near.append(f"addr add {subnet[1]}/{subnet.prefixlen} dev {link}{flag}")
        far.append(f"addr add {subnet[2]}/{subnet.prefixlen} dev eth0{flag}")
        far.append(f"route add default via {subnet[1]} dev eth0")
        forward.append(f"net/{_FORWARDING[subnet.version]}")
    ip_batch([*near, f"link set {link} up"], netns=node_netns)
    ip_batch(["link set eth0 up", *far], netns=netns)
    _write_sysctls(node_netns, forward, "1")


def free_subnet() -> ipaddress.IPv4Network:
    """The first /24 of the range that no route of the host overlaps.

    Call it, and add the first address, under one lock between processes. Raises MissingRequirementError when
    all 512 are taken.
    """
    routes = json.loads(process.run(["ip", "-json", "-4", "route", "list", "table", "all"]).stdout or b"[]")
    return first_free_subnet(row["dst"] for row in routes if row.get("dst") not in {None, "default"})


def first_free_subnet(taken: Iterable[str]) -> ipaddress.IPv4Network:
    """The first /24 of the range that overlaps none of ``taken`` (addresses or networks)."""
    used = [ipaddress.ip_network(text, strict=False) for text in taken]
    for subnet in CLUSTER_RANGE.subnets(new_prefix=CLUSTER_PREFIX):
        if not any(subnet.overlaps(other) for other in used):
            return ipaddress.IPv4Network(subnet)
    raise MissingRequirementError(
        f"every /{CLUSTER_PREFIX} of {CLUSTER_RANGE} is routed on this host",
        remedy="run `kilonode clean`, or remove the routes",
    )
