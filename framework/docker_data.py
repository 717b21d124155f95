"""The data folder of a private docker engine: images stay, what ran is removed without the engine.

A killed engine leaves containers, volumes and networks. One that starts on them starts kind's nodes again,
for that is their restart policy, and makes the bridges of its networks again. So they are removed while no
engine runs, by what docker keeps of them below its data folder (storage driver overlay2):

* ``containers``, ``volumes`` and ``network`` are folders of nothing else, and ``containerd`` has what its
  tasks left;
* ``image/overlay2/layerdb/mounts/CONTAINER`` names the two layers that a container writes to, in ``mount-id``
  and ``init-id``. A layer is the folder ``overlay2/ID``, and ``overlay2/l/SHORT`` is a link to it, with SHORT
  written in the layer's file ``link``. All other layers are those of images;
* ``network/files/local-kv.db`` has each network's bridge in plain JSON. Only names that docker chose itself
  are believed: it keeps what was deleted for a while too, and who names a bridge removes it.

An engine and all that it started hold a lock on ``engine.lock`` as long as any of them exists.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import filelock

from framework import network

STORAGE_DRIVER: Final = "overlay2"
_NOT_IMAGES: Final = ("containers", "volumes", "network", "containerd")
_OWN_LAYERS: Final = ("mount-id", "init-id")
_CHOSEN_BRIDGE: Final = re.compile(rb'"BridgeName":"(br-[0-9a-f]{12})"')


def lock_path(data_root: Path) -> Path:
    """The file that an engine on ``data_root`` holds a lock on (flock(2))."""
    return data_root / "engine.lock"


def in_use(data_root: Path) -> bool:
    """Whether an engine, or something that it started, still runs on ``data_root``."""
    data_root.mkdir(parents=True, exist_ok=True, mode=0o710)
    try:
        with filelock.FileLock(lock_path(data_root), timeout=0):
            return False
    except filelock.Timeout:
        return True


def discard_containers(data_root: Path) -> None:
    """Remove every container, volume and network of an engine that is gone; images stay.

    Where another engine runs on the folder, what is there is that one's, and is left alone.
    """
    if not data_root.is_dir() or in_use(data_root):
        return
    with filelock.FileLock(lock_path(data_root), timeout=0):
        for bridge in _bridges(data_root):
            network.delete_link(bridge)
        for path in containers_files(data_root):
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)


def containers_files(data_root: Path) -> tuple[Path, ...]:
    """What is no image's: folders, and the links to layers, in the order in which they can be removed."""
    layers = data_root / STORAGE_DRIVER
    mounts = data_root / "image" / STORAGE_DRIVER / "layerdb" / "mounts"
    found: list[Path] = []
    for mount in sorted(mounts.iterdir()) if mounts.is_dir() else []:
        for layer in (layers / layer_id for layer_id in _layer_ids(mount)):
            if (layer / "link").exists():
                found.append(layers / "l" / (layer / "link").read_text().strip())
            found.append(layer)
        found.append(mount)
    found += [data_root / name for name in _NOT_IMAGES]
    return tuple(path for path in found if path.is_symlink() or path.exists())


def _layer_ids(mount: Path) -> Iterator[str]:
    """A file that was cut short must not name the folder of all layers."""
    for name in _OWN_LAYERS:
        path = mount / name
        layer_id = path.read_text().strip() if path.exists() else ""
        if re.fullmatch(r"[0-9a-f]{64}(-init)?", layer_id):
            yield layer_id


def _bridges(data_root: Path) -> tuple[str, ...]:
    database = data_root / "network" / "files" / "local-kv.db"
    content = database.read_bytes() if database.exists() else b""
    return tuple(sorted({name.decode() for name in _CHOSEN_BRIDGE.findall(content)}))
