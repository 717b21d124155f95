"""A real nft in a network namespace and memory cgroup of its own, seen by every observer at once.

The rulesets are written as kube-proxy writes them: up to 1.35 with a chain and two rules for each endpoint,
from 1.36 on with one map. nft and its libraries are private copies that are not in the page cache, so that
every page of them is charged to the cgroup, as on a node of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from framework.cgroup import MemoryCgroup, memory_cgroup
from framework.observe import CgroupSampler, ExitRecorder, KernelLog, peak_slack_bytes, read_ruleset
from framework.outcome import ProcessExit
from framework.process import CommandError, inside, run
from framework.units import MIB
from framework.wait import wait_until

SERVICE = "default/measured"
LAYOUTS = ("chains", "map")
HEAD = """\
add table ip kube-proxy
add set ip kube-proxy cluster-ips { type ipv4_addr ; }
add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
add chain ip kube-proxy mark-for-masquerade
add rule ip kube-proxy mark-for-masquerade mark set mark or 0x4000
add chain ip kube-proxy services
add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips
"""


@dataclass(frozen=True)
class Place:
    """A network namespace, a memory cgroup and an nft of their own."""

    netns: str
    cgroup: MemoryCgroup
    folder: Path

    def pay_for_text(self) -> int:
        """Read nft's pages on the host's account: a full cgroup reclaims its own text before it kills.

        Gives how many bytes that are.
        """
        return sum(len(file.read_bytes()) for file in (self.folder / "nft", *(self.folder / "lib").iterdir()))

    def nft(self, transaction: str) -> int:
        """Load a transaction; gives the exit code as subprocess does."""
        library_path = f"LD_LIBRARY_PATH={self.folder / 'lib'}"
        argv = ["env", library_path, str(self.folder / "nft"), "-f", "-"]
        wrapped = inside(argv, cgroup_procs=self.cgroup.procs_path, netns=self.netns)
        return run(wrapped, stdin=transaction.encode(), check=False).exit_code


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces and cgroups need root; remedy: run the integration tests as root")
    name = f"kilonode-test-{uuid.uuid4().hex[:8]}"
    cgroup = memory_cgroup(name)
    copy_nft(tmp_path)
    run(["ip", "netns", "add", name])
    try:
        cgroup.create()
        yield Place(name, cgroup, tmp_path)
    finally:
        cgroup.remove()
        run(["ip", "netns", "del", name])


def copy_nft(folder: Path) -> None:
    nft = shutil.which("nft")
    if nft is None:
        pytest.skip("there is no nft; remedy: install nftables")
    (folder / "lib").mkdir()
    for library in set(re.findall(r"/\S+", run(["ldd", nft]).text)):
        shutil.copy(library, folder / "lib")
    shutil.copy(nft, folder / "nft")
    for file in (folder / "nft", *(folder / "lib").iterdir()):
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def address(index: int) -> str:
    return f"10.64.{index >> 8}.{index & 255}"


def transaction(layout: str, endpoints: int) -> str:
    """The transaction for two Services, of which one has a single endpoint."""
    write = {"chains": write_chains, "map": write_map}[layout]
    lines = write(SERVICE, "172.30.0.41", range(1, endpoints + 1))
    return HEAD + "\n".join([*lines, *write("default/kubernetes", "172.30.0.1", range(1, 2)), ""])


def write_service(service: str, cluster_ip: str, choice: str) -> list[str]:
    chain = f"ip kube-proxy service-ULMVA6XW-{service}/tcp/p80"
    return [
        f"add chain {chain}",
        f"add element ip kube-proxy cluster-ips {{ {cluster_ip} }}",
        f"add element ip kube-proxy service-ips {{ {cluster_ip} . tcp . 80 : goto {chain.split()[2]} }}",
        f"add rule {chain} ip daddr {cluster_ip} ip saddr != 10.0.0.0/8 jump mark-for-masquerade",
        f"add rule {chain} {choice}",
    ]


def write_chains(service: str, cluster_ip: str, indexes: range) -> list[str]:
    names = [f"endpoint-5OJB2KTY-{service}/tcp/p80__{address(index)}/80" for index in indexes]
    lines = []
    for name, index in zip(names, indexes, strict=True):
        chain = f"ip kube-proxy {name}"
        lines.append(f"add chain {chain}")
        lines.append(f"add rule {chain} ip saddr {address(index)} jump mark-for-masquerade")
        lines.append(f"add rule {chain} meta l4proto tcp dnat to {address(index)}:80")
    targets = " , ".join(f"{place} : goto {name}" for place, name in enumerate(names))
    choice = f"numgen random mod {len(names)} vmap {{ {targets} }}"
    return [*lines, *write_service(service, cluster_ip, choice)]


def write_map(service: str, cluster_ip: str, indexes: range) -> list[str]:
    if len(indexes) == 1:
        choice = f"meta l4proto tcp dnat to {address(indexes[0])}:80"
    else:
        targets = " , ".join(f"{i} : {address(index)} . 80" for i, index in enumerate(indexes))
        choice = (
            f"meta l4proto tcp dnat ip addr . port to numgen random mod {len(indexes)} map {{ {targets} }}"
        )
    return write_service(service, cluster_ip, choice)


def only_nft(exits: tuple[ProcessExit, ...]) -> ProcessExit:
    (nft,) = [ended for ended in exits if ended.comm == "nft"]
    return nft


def test_charged_peak_is_the_exit_records_peak_and_kernel_memory(place: Place) -> None:
    """Measured: 100.9 (RSS) + 9.3 (kernel) = 110.2 of 111.3 MiB charged; the rest is unmapped page cache."""
    rules = transaction("chains", 10_000)
    with ExitRecorder(0.0) as recorder, CgroupSampler(place.cgroup, 0.0, interval_s=0.005) as sampler:
        recorder.watch(place.cgroup)
        assert place.nft(rules) == 0
        nft = only_nft(recorder.exits(place.cgroup))
    reading = place.cgroup.read()
    assert reading.charged_bytes_peak is not None
    kernel_bytes_peak = reading.kernel_bytes_peak or sampler.kernel_bytes_peak.value
    explained_bytes = nft.memory_bytes_peak + kernel_bytes_peak
    assert nft.memory_bytes_peak > 50 * MIB
    assert kernel_bytes_peak > 2 * MIB
    assert explained_bytes == pytest.approx(reading.charged_bytes_peak, rel=0.05)
    slack_bytes = 2 * peak_slack_bytes(os.cpu_count() or 1)
    assert explained_bytes - slack_bytes <= reading.charged_bytes_peak
    assert reading.charged_bytes_peak <= explained_bytes + reading.file_bytes + slack_bytes
    assert sampler.unreclaimable_bytes_peak.value < reading.charged_bytes_peak


def test_kernel_objects_stay_charged_after_nft_ended(place: Place) -> None:
    before = place.cgroup.read()
    assert place.nft(transaction("chains", 2_000)) == 0
    after = place.cgroup.read()
    assert after.anonymous_bytes < MIB
    assert after.kernel_bytes > before.kernel_bytes + MIB


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("endpoints", [1, 3_000])
def test_a_listing_of_what_was_loaded(place: Place, layout: str, endpoints: int) -> None:
    assert place.nft(transaction(layout, endpoints)) == 0
    ruleset = read_ruleset(netns=place.netns, services={SERVICE})
    assert ruleset.endpoints == endpoints
    assert ruleset.tables == 1
    chains = 2 + 2 + (endpoints + 1 if layout == "chains" else 0)
    assert ruleset.chains == chains
    assert ruleset.rules == 2 + 2 * 2 + (2 * (endpoints + 1) if layout == "chains" else 0)
    text = run(inside(["nft", "list", "ruleset"], netns=place.netns)).stdout
    assert ruleset.listing_bytes == len(text)
    assert read_ruleset(netns=place.netns, services={"default/kubernetes"}).endpoints == 1


def test_a_listing_of_no_namespace_fails_with_the_reason() -> None:
    with pytest.raises(CommandError, match="kilonode-none"):
        read_ruleset(netns="kilonode-none")


def test_an_oom_kill_is_seen_by_log_record_and_counter(place: Place) -> None:
    zero_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    place.cgroup.set_limit(48 * MIB)
    text_bytes = place.pay_for_text()
    with KernelLog(zero_s) as log, ExitRecorder(zero_s) as recorder:
        recorder.watch(place.cgroup)
        bystander = subprocess.Popen(inside(["sleep", "60"], cgroup_procs=place.cgroup.procs_path))
        with bystander:
            wait_until(lambda: place.cgroup.pids() or None, what="the bystander", timeout_s=5)
            assert place.nft(transaction("chains", 10_000)) == -signal.SIGKILL
            (kill,) = log.kills(place.cgroup)
            nft = only_nft(recorder.exits(place.cgroup))
            bystander.kill()
        assert log.overruns == 0
    assert kill.victim_comm == "nft"
    assert kill.victim_pid == nft.pid
    assert nft.signal == signal.SIGKILL
    assert kill.cgroup == kill.victim_cgroup == place.cgroup.kernel_path
    assert {"sleep", "nft"} == {candidate.comm for candidate in kill.candidates}
    assert kill.memory_bytes_anon <= 48 * MIB
    assert kill.memory_bytes_anon <= nft.memory_bytes_peak <= 48 * MIB + text_bytes
    assert abs(kill.at_s - nft.at_s) < 1.0
    assert place.cgroup.read().oom_kills == 1


def test_samples_keep_their_pace_and_cost_little(place: Place) -> None:
    with CgroupSampler(place.cgroup, 0.0) as sampler:
        time.sleep(1.0)
    samples = sampler.samples
    assert 30 <= len(samples) <= 52
    assert samples[-1].at_s - samples[0].at_s == pytest.approx(1.0, abs=0.1)
    assert 0 < sampler.cpu_s < 0.1
