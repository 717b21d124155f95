"""What a ledger removes, on the real kernel: mounts, links, namespaces, cgroups, processes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from framework import network
from framework.cgroup import memory_cgroup
from framework.ledger import Cgroup, Folder, Ledger, Link, Netns, Process, mounts_below
from framework.process import inside, run, start_ticks_of
from framework.wait import wait_until


def test_everything_is_removed_newest_first(live_state: Path) -> None:
    ledger = Ledger.begin(live_state)
    name, folder = f"kilonode-{ledger.run_id}", live_state / "with mounts"
    link = f"kn{ledger.run_id}"
    cgroup = memory_cgroup(f"{name}/node")
    for thing in (Folder(str(folder)), Link(link), Netns(name), Cgroup(name)):
        ledger.record(thing)
    (folder / "inner").mkdir(parents=True)
    for target in (folder / "inner", folder / "inner"):
        run(["mount", "-t", "tmpfs", "none", target])
    (folder / "inner" / "file").write_text("hidden")
    network.add_netns(name)
    network.add_bridge(name, address="198.19.255.1")
    network.connect_host(name, link=link, address="198.19.255.2")
    cgroup.create()
    with (
        subprocess.Popen(inside(["sleep", "60"], cgroup_procs=cgroup.procs_path, netns=name)) as held,
        subprocess.Popen(["sleep", "60"]) as outside,
    ):
        wait_until(lambda: cgroup.pids() or None, what="the process in its cgroup", timeout_s=10)
        ledger.record(Process(outside.pid, start_ticks_of(outside.pid) or 0))
        assert ledger.finish() == ()
        assert (held.wait(5), outside.wait(5)) == (-9, -9)
    assert not folder.exists()
    assert mounts_below(str(folder), Path("/proc/mounts").read_text()) == ()
    assert name not in network.list_netns()
    assert link not in run(["ip", "-oneline", "link"]).text
    assert not memory_cgroup(name).path.exists()
    assert not ledger.folder.exists()


def test_what_never_came_to_be_is_removed_without_complaint(live_state: Path) -> None:
    ledger = Ledger.begin(live_state)
    name = f"kilonode-{ledger.run_id}"
    for thing in (Folder(str(live_state / "none")), Link("knnone"), Netns(name), Cgroup(name)):
        ledger.record(thing)
    ledger.record(Process(2**22 - 1, 1))
    assert ledger.finish() == ()
