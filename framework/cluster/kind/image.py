"""The node image of ``--cluster kind``, built where no registry can be reached.

It needs a Debian mirror (debootstrap), Go with a module proxy (for kind's own base files, and for executables
that can't be downloaded), root, and a container engine that it is loaded into. The tag is a digest of all
that goes in, the text of this recipe included: the same input is built once, other input has another name.

Every program that a measurement may depend on is named in the image's label, with its exact version, source,
toolchain and digest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from framework.binaries import Binaries, Binary, Request
from framework.binaries.gobuild import Go
from framework.binaries.identity import sha256_of, toolchain_of
from framework.binaries.store import require_free_space
from framework.cgroup import memory_cgroup
from framework.cluster.kind import archive, node_root, pod_images
from framework.containers import Engine
from framework.errors import KilonodeError, MissingRequirementError
from framework.ledger import Cgroup, Folder, Ledger
from framework.outcome import Component
from framework.units import GIB

REPOSITORY: Final = "localhost/kilonode/node"
"""Without a registry's name podman and kind would each add another; this one is nobody's, and never asked."""
LABEL: Final = "dev.kilonode.components"
KEY_CHARS: Final = 12
ON_NODE: Final = ("kubelet", "kubeadm", "kubectl")
PROGRAMS: Final = (*ON_NODE, *pod_images.CONTROL_PLANE, *pod_images.EVERYWHERE)
KIND_MODULE: Final = "sigs.k8s.io/kind"
BUILDER_PACKAGES: Final = {"debootstrap": "debootstrap", "chroot": "coreutils", "tar": "tar"}
"""Debian package by program."""
DEBIAN_PROGRAMS: Final = {
    "nft": ("nftables", "usr/sbin/nft"),
    "xtables-nft-multi": ("iptables", "usr/sbin/xtables-nft-multi"),
    "containerd": ("containerd", "usr/bin/containerd"),
    "runc": ("runc", "usr/sbin/runc"),
    "pause": ("catatonit", "usr/bin/catatonit"),
}
"""Those of the node that the label names: package and path by name."""
FREE_BYTES_MIN: Final = 5 * GIB
"""Debian's root, the layer made of it, the archive of that, and the image in the engine."""
LOAD_TIMEOUT_S: Final = 600.0
SETTINGS: Final = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container=docker"],
    "Entrypoint": ["/usr/local/bin/entrypoint", "/sbin/init"],
    # systemd's signal to halt; at SIGTERM it would start itself again.
    "StopSignal": "SIGRTMIN+3",
}

OnStep = Callable[[str], None]
"""Called with the name of each step when it begins."""


def node_image_requests(binaries: Binaries) -> tuple[Request, ...]:
    """The executables that go in, at their pins; kube-proxy is that of the control plane's release."""
    kubernetes = binaries.control_plane_version()
    return tuple(binaries.request(name, kubernetes if name == "kube-proxy" else None) for name in PROGRAMS)


def require_builder() -> None:
    """Raises MissingRequirementError for what this machine lacks to build the image, with the remedy."""
    if os.geteuid() != 0:
        raise MissingRequirementError(
            "a node image is built as root, for debootstrap",
            remedy="run `kilonode kind-image` as root (sudo -E)",
        )
    missing = missing_packages()
    if missing:
        raise MissingRequirementError(
            f"packages that build a node image are missing: {', '.join(missing)}",
            where="PATH",
            remedy=f"apt-get install {' '.join(missing)}, or use kindest/node with internet access",
        )
    if shutil.which("go") is None:
        raise MissingRequirementError(
            "kind's base files come from its Go module, and there is no Go on PATH",
            where="PATH",
            remedy="use kindest/node with internet access, or install Go",
        )


def missing_packages() -> tuple[str, ...]:
    """The Debian packages whose program is not on PATH."""
    return tuple(package for program, package in BUILDER_PACKAGES.items() if shutil.which(program) is None)


def find_node_image(engine: Engine, binaries: Binaries) -> str | None:
    """The image if the engine has it; None also where an executable that goes in is not here."""
    found = [binaries.find(request.name, request.version) for request in node_image_requests(binaries)]
    here = [binary for binary in found if binary is not None]
    if len(here) < len(found):
        return None
    image = image_tag(here, binaries)
    return image if engine.has_image(image) else None


def node_image(
    engine: Engine,
    binaries: Binaries,
    on_step: OnStep,
) -> str:
    """The image, built if the engine does not have it; executables are fetched first.

    Raises MissingRequirementError for what this machine lacks, and what fetching, debootstrap or the engine
    raise. Nothing but the image is left, whatever happens.
    """
    found = binaries.ensure_all(node_image_requests(binaries))
    image = image_tag(found, binaries)
    if engine.has_image(image):
        return image
    require_builder()
    require_free_space(binaries.root, FREE_BYTES_MIN)
    ledger = Ledger.begin()
    try:
        _build(image, engine, ledger, binaries=binaries, found=found, on_step=on_step)
    finally:
        left = ledger.finish()
    if left:
        raise KilonodeError(
            f"building {image} left something behind: {'; '.join(left)}",
            where=str(ledger.folder),
            remedy="run `kilonode clean`",
        )
    return image


def image_components(engine: Engine, image: str) -> tuple[Component, ...]:
    """What an image's label says is in it; nothing for an image of others."""
    template = f'{{{{index .Config.Labels "{LABEL}"}}}}'
    label = engine.run("image", "inspect", "--format", template, image)
    if not label or label == "<no value>":
        return ()
    return msgspec.json.decode(label, type=tuple[Component, ...])


def image_tag(found: Sequence[Binary], binaries: Binaries) -> str:
    """Its name for these executables: the Kubernetes version, and a digest of everything that goes in."""
    parts = [
        binaries.arch,
        binaries.request("kind").version,
        *(f"{binary.name} {binary.version} {binary.sha256}" for binary in found),
        *(sha256_of(Path(str(module.__file__))) for module in (archive, node_root, pod_images)),
        sha256_of(Path(__file__)),
    ]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:KEY_CHARS]
    return f"{REPOSITORY}:v{binaries.control_plane_version()}-{key}"


def _build(
    image: str,
    engine: Engine,
    ledger: Ledger,
    *,
    binaries: Binaries,
    found: Sequence[Binary],
    on_step: OnStep,
) -> None:
    work = binaries.root / "kind-image" / ledger.run_id
    cgroup = memory_cgroup(f"kilonode-{ledger.run_id}")
    ledger.record(Folder(str(work)))
    ledger.record(Cgroup(f"kilonode-{ledger.run_id}"))
    root, layers = work / "root", work / "layers"
    for folder in (root, layers):
        folder.mkdir(parents=True)
    cgroup.create()
    kubernetes = binaries.control_plane_version()
    paths = {binary.name: binary.path for binary in found}

    on_step("kind's base files")
    base_files = _base_files(binaries, work)
    on_step(f"Debian {node_root.SUITE}")
    node_root.bootstrap(root, cgroup_procs=cgroup.procs_path)
    names = pod_images.image_names(paths["kubeadm"], kubernetes, binaries.request("kwok").version)
    node_root.make_node(
        root,
        base_files=base_files,
        executables={name: paths[name] for name in ON_NODE},
        pause=names[pod_images.PAUSE],
        kubernetes=kubernetes,
    )
    on_step("images of its pods")
    pod_images.write_images(
        layers,
        root,
        names=names,
        executables=paths,
        arch=binaries.arch,
        node=root / node_root.NODE_IMAGES,
        control_plane=root / node_root.CONTROL_PLANE_IMAGES,
    )
    on_step("node image")
    components = (*(binary.component() for binary in found), *_debian_components(root))
    node_root.write_tar(root, work / "node.tar")
    labels = {LABEL: msgspec.json.encode(components).decode()}
    node = archive.Image(image, (archive.Layer.of(work / "node.tar"),), {**SETTINGS, "Labels": labels})
    shutil.rmtree(root)
    archive.write_archive(work / "image.tar", [node], binaries.arch)
    on_step(f"loading it into {engine.program}")
    engine.run("load", "--input", work / "image.tar", timeout_s=LOAD_TIMEOUT_S)


def _base_files(binaries: Binaries, cwd: Path) -> Path:
    go = Go.find(binaries.arch)
    assert go is not None  # noqa: S101 - require_builder saw it
    source = go.source(KIND_MODULE, f"v{binaries.request('kind').version}", cwd=cwd)
    return source / node_root.BASE_FILES


def _debian_components(root: Path) -> tuple[Component, ...]:
    versions = node_root.package_versions(root, [package for package, _ in DEBIAN_PROGRAMS.values()])
    return tuple(
        Component(
            name=name,
            version=versions[package],
            source="system package",
            toolchain=toolchain_of(root / path),
            sha256=sha256_of(root / path),
        )
        for name, (package, path) in DEBIAN_PROGRAMS.items()
    )
