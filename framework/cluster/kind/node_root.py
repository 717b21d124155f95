"""The root file system of a kind node: Debian, kind's own base files, and this project's executables.

It is what kind's Dockerfile (images/base) makes, with Debian's containerd, runc and CNI plugins in the place
of those that kind builds, since nothing but a Debian mirror and a Go module proxy is needed for these. What
differs:

* containerd's configuration is for Debian's containerd (1.6) and has no hook that hides the machine's product
  name from pods;
* ``restrict_oom_score_adj`` is on. containerd then gives a container no lower oom_score_adj than its own,
  which systemd sets to -999, lower than any that kubelet asks for: where scores can be lowered it changes
  nothing. Without CAP_SYS_RESOURCE systemd leaves containerd's at 0, and no container would start otherwise;
* images of the node's pods are in the node, and are loaded at its first boot, before kubelet starts;
* there is no CNI configuration, and none of kind's own pods (kindnet, CoreDNS, local-path-provisioner);
* Debian's own sysctls are left out, some of which would change the host's.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from framework import process

SUITE: Final = "bookworm"
PACKAGES: Final = (
    *("systemd", "systemd-sysv", "containerd", "runc", "containernetworking-plugins"),
    *("iptables", "nftables", "conntrack", "iproute2", "ethtool", "kmod", "mount", "procps"),
    *("ca-certificates", "bash", "catatonit", "netbase"),
)
DEBOOTSTRAP_TIMEOUT_S: Final = 1800.0
TAR_TIMEOUT_S: Final = 600.0
BASE_FILES: Final = "images/base/files"
"""In the source of kind."""
IMAGES: Final = "kind/images"
NODE_IMAGES: Final = f"{IMAGES}/node.tar"
CONTROL_PLANE_IMAGES: Final = f"{IMAGES}/control-plane.tar"
_PROGRAM: Final = 0o755
_FILE: Final = 0o644
_UNNEEDED: Final = (
    "var/cache/apt/*",
    "var/lib/apt/lists/*",
    "var/log/*.log",
    *(f"usr/share/{name}/*" for name in ("doc", "man", "locale", "info")),
    # As in kind's Dockerfile: units of a machine's boot.
    "lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
    *(f"lib/systemd/system/{name}.target.wants/*" for name in ("multi-user", "local-fs", "basic")),
    *(f"lib/systemd/system/sockets.target.wants/*{name}*" for name in ("udev", "initctl")),
    "etc/systemd/system/*.wants/*",
    # Sysctls that are the host's too: links' protection, the number of processes.
    "usr/lib/sysctl.d/*",
)
_ENABLED: Final = ("kubelet", "containerd", "undo-mount-hacks", "kilonode-images")
_MASKED: Final = ("systemd-binfmt",)
"""It would register formats with the host's kernel."""
_LINKS: Final = {
    # Where kind's own files look for what it builds itself.
    "usr/local/bin/containerd": "/usr/bin/containerd",
    "usr/local/bin/ctr": "/usr/bin/ctr",
    "usr/local/sbin/runc": "/usr/sbin/runc",
    "opt/cni/bin": "/usr/lib/cni",
    **{
        f"etc/systemd/system/multi-user.target.wants/{unit}.service": f"../{unit}.service"
        for unit in _ENABLED
    },
    **{f"etc/systemd/system/{unit}.service": "/dev/null" for unit in _MASKED},
}
CONTAINERD: Final = """\
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".containerd]
  # kind's entrypoint puts another one here where overlayfs does not work.
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
  discard_unpacked_layers = true

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true
"""
IMAGES_UNIT: Final = """\
[Unit]
Description=Load the images of this node's pods
Requires=containerd.service
After=containerd.service
Before=kubelet.service
ConditionPathExists=!/var/lib/containerd/kilonode-images
# kind waits for multi-user.target before it starts kubeadm, which has work that needs no images.
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
PassEnvironment=KUBECONFIG
ExecStart=/kind/bin/load-images.sh

[Install]
WantedBy=multi-user.target
"""
LOAD_IMAGES: Final = f"""\
#!/bin/sh
# kind gives KUBECONFIG to control-plane nodes only; the others don't pay for images that they never run.
set -eu
for archive in /{NODE_IMAGES} ${{KUBECONFIG:+/{CONTROL_PLANE_IMAGES}}}; do
  ctr --namespace k8s.io images import "$archive"
done
touch /var/lib/containerd/kilonode-images
"""
STORAGE: Final = """\
# Volumes of this class have to be made by hand: kind's provisioner is a pod that would disturb.
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations:
    storageclass.kubernetes.io/is-default-class: "true"
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
"""


def bootstrap(root: Path, *, cgroup_procs: Path) -> None:
    """Install Debian below ``root``. Its processes are in the cgroup, which ends those that outlive it."""
    debootstrap = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)]
    process.run(
        process.inside(debootstrap, cgroup_procs=cgroup_procs),
        timeout_s=DEBOOTSTRAP_TIMEOUT_S,
        remedy="see that a Debian mirror is reachable (http://deb.debian.org/debian)",
    )
    for pattern in _UNNEEDED:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def make_node(
    root: Path, *, base_files: Path, executables: Mapping[str, Path], pause: str, kubernetes: str
) -> None:
    """Make a kind node of a Debian below ``root``; ``executables`` go to /usr/bin by their names."""
    for source in (path for path in base_files.rglob("*") if path.is_file()):
        mode = _PROGRAM if source.parent.name == "bin" else _FILE
        _write(root / source.relative_to(base_files), source.read_bytes(), mode)
    for program, path in executables.items():
        shutil.copyfile(path, root / "usr/bin" / program)
        (root / "usr/bin" / program).chmod(_PROGRAM)
    for folder in ("etc/kubernetes/manifests", "etc/cni/net.d", IMAGES, "opt/cni", "kind/manifests"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, target in _LINKS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)
    _write(root / "etc/containerd/config.toml", CONTAINERD.format(pause=pause).encode())
    _write(root / "etc/systemd/system/kilonode-images.service", IMAGES_UNIT.encode())
    _write(root / "kind/bin/load-images.sh", LOAD_IMAGES.encode(), _PROGRAM)
    _write(root / "kind/manifests/default-storage.yaml", STORAGE.encode())
    _write(root / "kind/version", f"v{kubernetes}".encode())
    with (root / "etc/systemd/journald.conf").open("a") as file:
        file.write("ReadKMsg=no\n")
    # The entrypoint makes one for each node, and docker its own of these.
    for name in ("etc/machine-id", "etc/hostname", "etc/resolv.conf"):
        (root / name).unlink(missing_ok=True)


def package_versions(root: Path, packages: Sequence[str]) -> dict[str, str]:
    """Versions of Debian packages that are installed below ``root``."""
    shown = process.run(
        ["chroot", root, "dpkg-query", "--show", "--showformat=${Package} ${Version}\n", *packages]
    )
    return dict(line.split(" ", 1) for line in shown.text.splitlines())


def write_tar(root: Path, path: Path) -> None:
    """The whole root as a layer."""
    process.run(
        ["tar", "--create", "--numeric-owner", "--sort=name", "--file", path, "--directory", root, "."],
        timeout_s=TAR_TIMEOUT_S,
    )


def _write(path: Path, content: bytes, mode: int = _FILE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
