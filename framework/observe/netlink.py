"""The two netlink conversations behind exact exit records: taskstats and the proc connector.

*taskstats* (generic netlink) sends one record for every thread that ends on the CPUs one registered for, at
the moment of its exit: status, times, and the high-water RSS of its address space. The *proc connector*
(NETLINK_CONNECTOR) sends an event for each fork and exec. Both are talked to directly: a reader that decodes
the dozen needed bytes of a record keeps up with thousands of exits a second, and a full socket buffer shows
as ENOBUFS on the very socket that lost something.

The layout of ``struct taskstats`` is append-only except for version 15 (Linux 6.13 to 6.15), which put delay
extremes in between; version 16 moved them to the end again. Versions before 12 (Linux before 5.19) do not say
to which process a thread belonged and are refused.

Both conversations need CAP_NET_ADMIN in the initial network, process and user namespaces.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from framework.errors import MissingRequirementError

RECEIVE_BUFFER_BYTES: Final = 32 * 1024**2
"""Room for some ten thousand exit records (about 2 KiB of kernel memory each)."""
POSSIBLE_CPUS: Final = Path("/sys/devices/system/cpu/possible")
REQUEST_TIMEOUT_S: Final = 5.0

_NETLINK_CONNECTOR: Final = 11
_SO_RCVBUFFORCE: Final = 33
_NETLINK_GENERIC: Final = 16
_DATAGRAM_BYTES_MAX: Final = 65536

_HEADER: Final = struct.Struct("=IHHII")
_GENERIC_HEADER_BYTES: Final = 4
_ATTRIBUTE: Final = struct.Struct("=HH")
_NLMSG_ERROR: Final = 2
_NLM_F_REQUEST_ACK: Final = 0x1 | 0x4

_GENL_ID_CTRL: Final = 0x10
_CTRL_CMD_GETFAMILY: Final = 3
_CTRL_ATTR_FAMILY_ID: Final = 1
_CTRL_ATTR_FAMILY_NAME: Final = 2

_TASKSTATS_CMD_GET: Final = 1
_TASKSTATS_ATTR_PID: Final = 1
_TASKSTATS_ATTR_REGISTER_CPUMASK: Final = 3
_TASKSTATS_TYPE_STATS: Final = 3
_TASKSTATS_TYPE_AGGR_PID: Final = 4
_TASKSTATS_VERSION_MIN: Final = 12
_LAST_OF_GROUP: Final = 0x20

_CN_IDX_PROC: Final = 1
_PROC_CN_MCAST_LISTEN: Final = 1
_CONNECTOR_HEADER: Final = struct.Struct("=IIIIHH")
_PROC_EVENT: Final = struct.Struct("=I16xiii")
"""What happened, then the tgid it happened to; for a fork also the child's pid and tgid."""
_PROC_EVENT_FORK: Final = 0x1
_PROC_EVENT_EXEC: Final = 0x2


class ThreadExit(NamedTuple):
    """One thread's end. ``group_ended`` is true for the last thread of its process.

    ``wait_status`` (as wait(2) gives it) is filled by the kernel for the thread group's leader only.
    """

    pid: int
    tgid: int
    parent_pid: int
    comm: str
    wait_status: int
    group_ended: bool
    elapsed_us: int
    user_us: int
    system_us: int
    memory_kib_peak: int


class Fork(NamedTuple):
    """A new process (a new thread is not reported)."""

    parent_pid: int
    pid: int


class Exec(NamedTuple):
    """A process began a new program."""

    pid: int


class _Layout(NamedTuple):
    """Offsets in ``struct taskstats``: from ``ac_comm`` on, and of ``ac_tgid``."""

    comm: int
    tgid: int


_LAYOUT: Final = _Layout(comm=80, tgid=368)
_LAYOUT_15: Final = _Layout(comm=128, tgid=464)
_STATUS_AND_FLAG: Final = struct.Struct("=H2xIB")
_FROM_COMM: Final = struct.Struct("=32s16xII8xQQQ32xQ")
_GROUP: Final = struct.Struct("=I4xQ")


def open_exit_socket(receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES) -> socket.socket:
    """A non-blocking socket that receives a record for every thread that ends on this machine.

    Raises MissingRequirementError where the kernel refuses.
    """
    opened = _open(_NETLINK_GENERIC, 0, receive_buffer_bytes)
    try:
        family = _taskstats_family(opened)
        own = struct.pack("=I", os.getpid())
        reply = _request(opened, family, _TASKSTATS_CMD_GET, _TASKSTATS_ATTR_PID, own)
        _require_version(reply)
        cpus = POSSIBLE_CPUS.read_text().strip().encode() + b"\0"
        _request(opened, family, _TASKSTATS_CMD_GET, _TASKSTATS_ATTR_REGISTER_CPUMASK, cpus)
    except OSError as error:
        opened.close()
        raise _refused("exit records (taskstats)", error) from error
    except BaseException:
        opened.close()
        raise
    opened.setblocking(False)
    return opened


def open_process_event_socket(receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES) -> socket.socket:
    """A non-blocking socket that receives fork and exec events of this machine.

    Raises MissingRequirementError where the kernel refuses.
    """
    opened = _open(_NETLINK_CONNECTOR, _CN_IDX_PROC, receive_buffer_bytes)
    listen = struct.pack("=I", _PROC_CN_MCAST_LISTEN)
    body = _CONNECTOR_HEADER.pack(_CN_IDX_PROC, 1, 0, 0, len(listen), 0) + listen
    try:
        opened.send(_HEADER.pack(_HEADER.size + len(body), 3, 0, 0, os.getpid()) + body)
    except OSError as error:
        opened.close()
        raise _refused("process events (proc connector)", error) from error
    opened.setblocking(False)
    return opened


def _open(protocol: int, groups: int, receive_buffer_bytes: int) -> socket.socket:
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise _refused("netlink", error) from error
    try:
        opened.bind((0, groups))
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer_bytes)
        opened.settimeout(REQUEST_TIMEOUT_S)
    except OSError as error:
        opened.close()
        raise _refused("netlink", error) from error
    return opened


def _refused(what: str, error: OSError) -> MissingRequirementError:
    return MissingRequirementError(
        f"the kernel refuses {what}: {error.strerror or error}",
        remedy="run as root on the machine itself: CAP_NET_ADMIN in the initial namespaces is needed",
    )


def _taskstats_family(opened: socket.socket) -> int:
    reply = _request(opened, _GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, _CTRL_ATTR_FAMILY_NAME, b"TASKSTATS\0")
    family = dict(_attributes(reply)).get(_CTRL_ATTR_FAMILY_ID)
    if family is None:
        raise OSError(errno.ENOENT, "this kernel has no taskstats")
    return int.from_bytes(family[:2], sys.byteorder)


def _require_version(reply: memoryview) -> None:
    stats = _stats(reply)
    version = struct.unpack_from("=H", stats)[0] if stats is not None else 0
    if version < _TASKSTATS_VERSION_MIN:
        raise MissingRequirementError(
            f"exit records of version {version} do not name a thread's process",
            remedy="use Linux 5.19 or newer",
        )


def _request(opened: socket.socket, kind: int, command: int, attribute: int, value: bytes) -> memoryview:
    """Send one request and give the attributes of its answer (empty where it is a plain acknowledgement)."""
    body = struct.pack("=BBH", command, 1, 0) + _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), attribute)
    body += value + bytes(-len(value) % 4)
    opened.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST_ACK, 1, 0) + body)
    answer = memoryview(b"")
    while True:
        for answer_kind, payload in _messages(opened.recv(_DATAGRAM_BYTES_MAX)):
            if answer_kind != _NLMSG_ERROR:
                answer = payload[_GENERIC_HEADER_BYTES:]
                continue
            code = -struct.unpack_from("=i", payload)[0]
            if code:
                raise OSError(code, os.strerror(code))
            return answer


def _messages(datagram: bytes) -> Iterator[tuple[int, memoryview]]:
    """The messages of a datagram, as type and payload; a truncated rest is dropped."""
    rest = memoryview(datagram)
    while len(rest) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(rest)
        if not _HEADER.size <= length <= len(rest):
            return
        yield kind, rest[_HEADER.size : length]
        rest = rest[(length + 3) & ~3 :]


def _attributes(payload: memoryview) -> Iterator[tuple[int, memoryview]]:
    rest = payload
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if not _ATTRIBUTE.size <= length <= len(rest):
            return
        yield kind & 0x3FFF, rest[_ATTRIBUTE.size : length]
        rest = rest[(length + 3) & ~3 :]


def _stats(attributes: memoryview) -> memoryview | None:
    """The ``struct taskstats`` of a thread; the aggregate of a thread group carries delays only."""
    for kind, nested in _attributes(attributes):
        if kind == _TASKSTATS_TYPE_AGGR_PID:
            for inner_kind, value in _attributes(nested):
                if inner_kind == _TASKSTATS_TYPE_STATS:
                    return value
    return None


def decode_exits(datagram: bytes) -> Iterator[ThreadExit]:
    """The exit records in a datagram of the taskstats socket; what is malformed is skipped."""
    for _, payload in _messages(datagram):
        stats = _stats(payload[_GENERIC_HEADER_BYTES:])
        if stats is None or len(stats) < _STATUS_AND_FLAG.size:
            continue
        version, wait_status, flag = _STATUS_AND_FLAG.unpack_from(stats)
        layout = _LAYOUT_15 if version == 15 else _LAYOUT
        if len(stats) < layout.tgid + _GROUP.size:
            continue
        comm, pid, parent_pid, elapsed, user, system, peak = _FROM_COMM.unpack_from(stats, layout.comm)
        tgid, group_elapsed = _GROUP.unpack_from(stats, layout.tgid)
        group_ended = bool(flag & _LAST_OF_GROUP)
        yield ThreadExit(
            pid=pid,
            tgid=tgid,
            parent_pid=parent_pid,
            comm=comm.split(b"\0", 1)[0].decode(errors="replace"),
            wait_status=wait_status,
            group_ended=group_ended,
            elapsed_us=group_elapsed if group_ended else elapsed,
            user_us=user,
            system_us=system,
            memory_kib_peak=peak,
        )


def decode_process_events(datagram: bytes) -> Iterator[Fork | Exec]:
    """The fork and exec events in a datagram of the proc connector; others are skipped."""
    for _, payload in _messages(datagram):
        if len(payload) < _CONNECTOR_HEADER.size + _PROC_EVENT.size:
            continue
        what, tgid, child_pid, child_tgid = _PROC_EVENT.unpack_from(payload, _CONNECTOR_HEADER.size)
        if what == _PROC_EVENT_EXEC:
            yield Exec(pid=tgid)
        elif what == _PROC_EVENT_FORK and child_pid == child_tgid:
            yield Fork(parent_pid=tgid, pid=child_tgid)
