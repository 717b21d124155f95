"""Container images as archives of ``docker save``: docker, podman and containerd load them.

An archive holds layers (tar files, named by their sha256), a configuration for each image, and a manifest
that says which configuration goes with which layers and tag. Images that share a layer share its file.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from framework.binaries.identity import sha256_of
from framework.binaries.pins import OS

FOLDER_MODE: Final = 0o755
PROGRAM_MODE: Final = 0o755
FILE_MODE: Final = 0o644


@dataclass(frozen=True)
class Layer:
    """A tar file with its digest."""

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Layer:
        return cls(path, sha256_of(path))

    @property
    def name(self) -> str:
        """In the archive."""
        return f"{self.sha256}.tar"


@dataclass(frozen=True)
class Image:
    """``settings`` are the container's defaults, in the words of the OCI image specification's ``config``."""

    tag: str
    layers: tuple[Layer, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


def write_layer(
    path: Path,
    *,
    programs: Mapping[str, Path],
    texts: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
    folders: Mapping[str, int] | None = None,
) -> Layer:
    """Make a layer of executables, text files, links and folders (with their modes), by absolute paths.

    The same input gives the same bytes.
    """
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, mode in sorted((folders or {}).items()):
            folder = _entry(name, mode)
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        for name, source in sorted(programs.items()):
            program = _entry(name, PROGRAM_MODE)
            program.size = source.stat().st_size
            with source.open("rb") as file:
                archive.addfile(program, file)
        for name, text in sorted((texts or {}).items()):
            _add_bytes(archive, name, text.encode())
        for name, target in sorted((links or {}).items()):
            link = _entry(name, PROGRAM_MODE)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    return Layer.of(path)


def write_archive(path: Path, images: Sequence[Image], arch: str) -> None:
    """Write ``images`` into one archive."""
    manifest = []
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for layer in dict.fromkeys(layer for image in images for layer in image.layers):
            archive.add(layer.path, arcname=layer.name)
        for image in images:
            config = configuration(image, arch)
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            _add_bytes(archive, name, config)
            manifest.append(
                {"Config": name, "RepoTags": [image.tag], "Layers": [layer.name for layer in image.layers]}
            )
        _add_bytes(archive, "manifest.json", msgspec.json.encode(manifest))


def configuration(image: Image, arch: str) -> bytes:
    """An image's configuration; its tag is part of it, for two images may differ in nothing else."""
    return msgspec.json.encode(
        {
            "architecture": arch,
            "os": OS,
            "author": image.tag,
            "config": dict(image.settings),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.sha256}" for layer in image.layers]},
        }
    )


def _entry(name: str, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name.removeprefix("/"))
    entry.mode = mode
    return entry


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = _entry(name, FILE_MODE)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
