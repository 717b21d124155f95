"""The images of a kind node's pods, made of executables that are here: no registry is asked.

All have one base layer of the node's Debian: nft and iptables with their extensions, which kube-proxy runs,
with the libraries that they need and the names of protocols, and ``pause``. The program is a layer of its
own. So nft in kube-proxy's image is Debian's package, as it was in the official image until mid-2026 (1.0.6.1
since, kubernetes/kubernetes#140405).

``pause`` is catatonit, which pauses as Kubernetes' own does. It ends at SIGTERM, which a container's first
process does not do unless it asks for the signal; without that a node takes long to stop.

Tags are those that kubeadm asks for. kube-apiserver, kube-controller-manager, kube-scheduler and etcd run on
control-plane nodes only and are in an archive of their own: what a worker loads counts as its memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from framework import process
from framework.cluster.kind.archive import Image, Layer, write_archive, write_layer
from framework.errors import KilonodeError

REGISTRY: Final = "registry.k8s.io"
CONTROL_PLANE: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
EVERYWHERE: Final = ("kube-proxy", "kwok")
PAUSE: Final = "pause"
BIN: Final = "/usr/local/bin"
PATH: Final = f"PATH={BIN}:/usr/sbin:/usr/bin:/sbin:/bin"
_BASE_PROGRAMS: Final = {
    "/usr/sbin/nft": "/usr/sbin/nft",
    "/usr/sbin/xtables-nft-multi": "/usr/sbin/xtables-nft-multi",
}
"""In the node's root, by the path in the image."""
_STATIC_PAUSE: Final = "/usr/bin/catatonit"
_IPTABLES: Final = tuple(
    f"{name}{what}" for name in ("iptables", "ip6tables") for what in ("", "-save", "-restore")
)
_EXTENSIONS: Final = "usr/lib/*/xtables/*.so"
_BASE_TEXTS: Final = {
    "/etc/passwd": "root:x:0:0:root:/root:/\n",
    "/etc/group": "root:x:0:\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",
}
_BASE_FILES: Final = ("etc/protocols", "etc/services")
"""In the node's root. Where nft knows no names of protocols, kube-proxy does not find its own rules again."""
_BASE_FOLDERS: Final = {"/root": 0o700, "/run": 0o755, "/tmp": 0o1777, "/var": 0o755}  # noqa: S108
_MAPPED: Final = re.compile(r"(/\S+) \(0x")
"""A library, or the loader itself, in the output of ldd."""


def image_names(kubeadm: Path, kubernetes: str, kwok: str) -> dict[str, str]:
    """The images that pods of this Kubernetes ask for, by program: as kubeadm says, and kwok's.

    CoreDNS is left out. Raises KilonodeError when kubeadm names none for a program.
    """
    listed = process.run([kubeadm, "config", "images", "list", "--kubernetes-version", f"v{kubernetes}"])
    tags = {
        image.rpartition(":")[0].rpartition("/")[2]: image
        for image in listed.text.split()
        if image.startswith(f"{REGISTRY}/")
    }
    tags["kwok"] = f"{REGISTRY}/kwok/kwok:v{kwok}"
    names = (*CONTROL_PLANE, *EVERYWHERE, PAUSE)
    missing = [name for name in names if name not in tags]
    if missing:
        raise KilonodeError(
            f"kubeadm names no image of {', '.join(missing)}; it says {listed.text.split()}",
            where=str(kubeadm),
            remedy="pin a kubeadm of the same release as kube-apiserver",
        )
    return {name: tags[name] for name in names}


def write_images(
    folder: Path,
    root: Path,
    *,
    names: Mapping[str, str],
    executables: Mapping[str, Path],
    arch: str,
    node: Path,
    control_plane: Path,
) -> None:
    """Write the archives of all nodes' images and of the control plane's.

    ``names`` are the images and ``executables`` the programs' files, by program; layers are made in
    ``folder``, and ``root`` is the root of the node.
    """
    base = _base_layer(folder / "base.tar", root)
    pause = Image(names[PAUSE], (base,), {"Env": [PATH], "Entrypoint": [f"/{PAUSE}", "-P"]})

    def made(programs: Sequence[str]) -> list[Image]:
        return [_program_image(folder, base, name, names[name], executables[name]) for name in programs]

    write_archive(node, [pause, *made(EVERYWHERE)], arch)
    write_archive(control_plane, made(CONTROL_PLANE), arch)


def _program_image(folder: Path, base: Layer, program: str, tag: str, executable: Path) -> Image:
    path = f"{BIN}/{program}"
    layer = write_layer(folder / f"{program}.tar", programs={path: executable})
    return Image(tag, (base, layer), {"Env": [PATH], "Entrypoint": [path]})


def _base_layer(path: Path, root: Path) -> Layer:
    extensions = [f"/{extension.relative_to(root)}" for extension in root.glob(_EXTENSIONS)]
    loaded = [*_BASE_PROGRAMS.values(), *extensions]
    listing = process.run(["chroot", root, "ldd", *loaded])
    libraries = sorted(set(_MAPPED.findall(listing.text)))
    return write_layer(
        path,
        programs={
            **{name: root / source[1:] for name, source in _BASE_PROGRAMS.items()},
            **{name: root / name[1:] for name in [*extensions, *libraries]},
            f"/{PAUSE}": root / _STATIC_PAUSE[1:],
        },
        texts=_BASE_TEXTS | {f"/{name}": (root / name).read_text() for name in _BASE_FILES},
        links={f"/usr/sbin/{name}": "xtables-nft-multi" for name in _IPTABLES},
        folders=_BASE_FOLDERS,
    )
