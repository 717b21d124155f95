"""The image of ballast pods, made of this machine's own programs: no registry, no compiler, no network.

It holds ``sh``, ``dd`` and ``sleep`` with the shared libraries that they need, as any Linux has them, and
serves as the pods' pause image too. All three are there once more under the name of each pod, because the
kernel log names a victim by the name that it was executed by.

* Anonymous memory is the buffer of ``dd bs=SIZE``, filled from /dev/zero. What it then writes goes to a FIFO
  that nobody reads: it waits there for ever, at no CPU.
* Page cache is a file that ``dd`` writes once and reads again every second.

The archive has the format of ``docker save``, which containerd imports. The same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from framework import process
from framework.errors import MissingRequirementError
from framework.spec import Ballast
from framework.units import MIB

IMAGE: Final = "kilonode.dev/ballast:local"
PAUSE: Final = "pause"
_PROGRAMS: Final = {"sh": "sh", "dd": "dd", "sleep": "sleep", PAUSE: "sleep"}
"""Host program by its name in the image's /bin."""
_NAMED: Final = ("sh", "dd", "sleep")
"""Programs that a pod runs by its own name, as ``/dd/NAME``."""
_FIFO: Final = "hold"
_MAPPED: Final = re.compile(r"(/\S+) \(0x")
"""A library, or the loader itself, in the output of ldd."""


def image_files() -> dict[str, bytes]:
    """The image's regular files by path without the leading slash.

    Raises MissingRequirementError when the machine lacks one of its programs.
    """
    files: dict[str, bytes] = {}
    for name, program in _PROGRAMS.items():
        path = shutil.which(program)
        if path is None:
            raise MissingRequirementError(
                f"there is no program {program!r} to make the pods' image of",
                where="PATH",
                remedy="install the package that has it (dash, coreutils)",
            )
        files[f"bin/{name}"] = Path(path).read_bytes()
        listing = process.run(["ldd", path], check=False)
        files |= {library[1:]: Path(library).read_bytes() for library in _MAPPED.findall(listing.text)}
    return files


def image_archive(files: Mapping[str, bytes], pods: Sequence[Ballast], architecture: str) -> bytes:
    """The archive of an image with ``files``, in which each pod finds its programs under its own name."""
    layer = _tar([*_regular(files), *_links(sorted(pod.name for pod in pods)), _fifo()])
    config = msgspec.json.encode(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": [f"/bin/{PAUSE}", "infinity"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    )
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    parts = {"manifest.json": msgspec.json.encode(manifest), config_name: config, "layer.tar": layer}
    return _tar(_regular(parts))


def ballast_command(pod: Ballast) -> list[str]:
    """What a container of the image runs to hold what ``pod`` holds."""
    sh, dd, sleep = (f"/{program}/{pod.name}" for program in _NAMED)
    if pod.content == "anonymous":
        script = (
            f"exec {dd} if=/dev/zero of=/{_FIFO} bs={pod.memory_bytes} count=1 iflag=fullblock 9<>/{_FIFO}"
        )
    else:
        whole, rest = divmod(pod.memory_bytes, MIB)
        script = (
            f"{dd} if=/dev/zero of=/cached bs={MIB} count={whole + bool(rest)} conv=fsync; "
            f"while :; do {dd} if=/cached of=/dev/null bs={MIB}; {sleep} 1; done"
        )
    return [sh, "-c", script]


def _regular(files: Mapping[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    entries = []
    for name in sorted(files):
        entry = tarfile.TarInfo(name)
        entry.size = len(files[name])
        entry.mode = 0o755
        entries.append((entry, files[name]))
    return entries


def _links(names: Sequence[str]) -> list[tuple[tarfile.TarInfo, bytes]]:
    entries = []
    for program in _NAMED:
        for name in names:
            entry = tarfile.TarInfo(f"{program}/{name}")
            entry.type = tarfile.SYMTYPE
            entry.linkname = f"/bin/{program}"
            entries.append((entry, b""))
    return entries


def _fifo() -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(_FIFO)
    entry.type = tarfile.FIFOTYPE
    entry.mode = 0o600
    return entry, b""


def _tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for entry, data in entries:
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
