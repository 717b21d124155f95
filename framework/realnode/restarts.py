"""How long a process that ended stays away in production, before it is started again.

kubelet and containerd are systemd units with ``Restart=always``; kube-proxy and pods are containers, which
kubelet starts again with a back-off that doubles.
"""

from __future__ import annotations

from typing import Final

from framework.spec import Spec


class BackOff(Spec, frozen=True, kw_only=True):
    """The n-th restart comes after ``first_s`` times 2 to the n, at most ``longest_s``.

    A process that ran for ``forgiven_after_s`` begins at ``first_s`` again.
    """

    first_s: float
    longest_s: float
    forgiven_after_s: float = 600.0

    def delay_s(self, earlier: int) -> float:
        """The delay after ``earlier`` restarts that are not forgiven."""
        return float(min(self.longest_s, self.first_s * 2**earlier))


CONTAINER: Final = BackOff(first_s=10.0, longest_s=300.0)
"""initialCrashLoopBackOff and MaxCrashLoopBackOff in pkg/kubelet/kubelet.go; it forgets after twice the
longest."""
SYSTEM_DAEMON: Final = BackOff(first_s=0.1, longest_s=0.1)
"""DefaultRestartSec of systemd-system.conf(5)."""
DAEMONS: Final = {
    "kubelet": BackOff(first_s=10.0, longest_s=10.0),
    "containerd": BackOff(first_s=5.0, longest_s=5.0),
    "kube-proxy": CONTAINER,
}
"""RestartSec of kubelet.service (packages of kubernetes/release) and containerd.service; kube-proxy is a
DaemonSet's container."""
