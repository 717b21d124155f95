"""runc for an engine that lacks a privilege which it asks for in each container's name.

An engine asks for all capabilities of a privileged container, for an oom_score_adj that may be lower than its
own, and for high resource limits. Without CAP_SYS_RESOURCE the kernel refuses each of these, and runc then
starts nothing. This stands between the engine and runc: it takes out of ``config.json`` (of ``create`` and
``run``) or ``process.json`` (of ``exec``) what the kernel would refuse, and becomes runc. So a container has
as much as any process here can have.

It is a program of its own (``python -I -S oci_runtime.py RUNC ARGUMENTS``) that imports nothing of the
framework: it runs for each container and for each ``docker exec``, and starts in some 20 ms.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

CAPABILITIES: Final = """\
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
PERFMON BPF CHECKPOINT_RESTORE
"""
"""In the order of their numbers (capability.h)."""
_FILES: Final = {
    "create": (("--bundle", "-b"), "config.json"),
    "run": (("--bundle", "-b"), "config.json"),
    "exec": (("--process", "-p"), ""),
}
"""By runc's command: the options that say where its file is, and the file's name in that folder."""


def capability_names(mask: int) -> frozenset[str]:
    """``CAP_CHOWN`` and its like for the bits of a capability set as /proc/PID/status shows it."""
    return frozenset(f"CAP_{name}" for number, name in enumerate(CAPABILITIES.split()) if mask >> number & 1)


def permitted(config: dict[str, Any], *, capabilities: frozenset[str], oom_score_adj: int) -> dict[str, Any]:
    """``config`` without what the kernel would refuse to a process with these capabilities and this score.

    It is a whole ``config.json`` or the process alone. Lowering oom_score_adj and raising a resource limit
    take a privilege that is missing; raising the one and inheriting the other do not.
    """
    process = dict(config.get("process", config))
    if process.get("capabilities"):
        process["capabilities"] = {
            kind: [name for name in names or () if name in capabilities]
            for kind, names in process["capabilities"].items()
        }
    if process.get("oomScoreAdj", oom_score_adj) < oom_score_adj:
        process["oomScoreAdj"] = oom_score_adj
    process.pop("rlimits", None)
    return {**config, "process": process} if "process" in config else process


def config_path(arguments: Sequence[str]) -> Path | None:
    """The file that runc will read with these arguments; None for commands that start no process."""
    command = next((word for word in arguments if word in _FILES), None)
    if command is None:
        return None
    options, name = _FILES[command]
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if option in options:
            return Path(value, name)
    return Path(name) if name else None


def main() -> None:
    """Become runc, with what it may not do taken out of what it is asked."""
    runc, *arguments = sys.argv[1:]
    path = config_path(arguments)
    if path is not None:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        config = permitted(
            json.loads(path.read_text()),
            capabilities=capability_names(int(status["CapBnd"], 16)),
            oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
        )
        path.write_text(json.dumps(config))
    os.execv(runc, [runc, *arguments])  # noqa: S606 - it becomes what the engine asked for


if __name__ == "__main__":
    main()
