"""What a machine can measure, by its facts; and that a run is refused with all that is bad, at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from framework import cli, doctor
from framework.doctor import Asked, Check, Facts, abilities, examine, look, require_machine
from framework.errors import MissingRequirementError
from framework.units import GIB

GOOD = Facts(
    is_root=True,
    may_lower_oom_scores=True,
    kernel="6.1.0-21-amd64",
    machine="x86_64",
    cpus=2,
    load=0.3,
    packages_missing=(),
    nft="1.0.6-2+deb12u2",
    nft_refusal="",
    links_refusal="",
    iptables_refusal="",
    cgroup_mode="v2",
    cgroup_refusal="",
    exits_refusal="",
    kernel_log_refusal="",
    memory_available_bytes=22 * GIB,
    swap_bytes=0,
    state_folder="/var/lib/kilonode",
    state_refusal="",
    state_free_bytes=50 * GIB,
    cache_folder="/var/cache/kilonode",
    cache_free_bytes=50 * GIB,
    runs_folder="runs",
    runs_free_bytes=50 * GIB,
    addresses_refusal="",
    binaries_missing=(),
    download_refusal=None,
    build_refusal=None,
    engine="docker 28.0.4",
    engine_refusal="",
    kind_missing=(),
    profiler=True,
    alive=(),
    dead=(),
)
ASKED = Asked(nodes=10_000)


def bad_of(facts: Facts, asked: Asked = ASKED) -> list[Check]:
    return [check for check in examine(facts, asked) if check.state == "bad"]


def warnings_of(facts: Facts) -> list[Check]:
    return [check for check in examine(facts, ASKED) if check.state == "warning"]


def with_facts(**changed: Any) -> Facts:
    return msgspec.structs.replace(GOOD, **changed)


def test_a_good_machine_can_run_everything() -> None:
    checks = examine(GOOD, ASKED)
    assert {check.state for check in checks} == {"good"}
    assert all(each.can and not each.why_not for each in abilities(checks, GOOD, ASKED))


@pytest.mark.parametrize(
    ("changed", "name", "blocks", "found", "remedy"),
    [
        ({"is_root": False}, "privileges", "measure", "need root", "sudo"),
        (
            {"packages_missing": ("nftables", "runc")},
            "packages",
            "measure",
            "nftables, runc",
            "apt-get install",
        ),
        ({"packages_missing": ("netbase",)}, "packages", "measure", "its own rules", "install netbase"),
        ({"links_refusal": "Operation not permitted"}, "kernel", "measure", "not permitted", "container"),
        ({"nft_refusal": "Could not process rule"}, "nft", "measure", "Could not process", "nft_fib"),
        ({"cgroup_refusal": "no memory cgroup can be made"}, "cgroup", "measure", "no memory", "read-write"),
        ({"kernel_log_refusal": "may not read"}, "kernel log", "measure", "may not", "dmesg_restrict"),
        ({"memory_available_bytes": 2 * GIB}, "memory", "size", "10,000 fake nodes", "more memory"),
        ({"memory_available_bytes": 3 * GIB}, "memory", "size", "10,000 fake nodes", "--max-nodes 2000"),
        ({"state_refusal": "too long a path"}, "state folder", "measure", "too long", "KILONODE_STATE_DIR"),
        (
            {"state_free_bytes": GIB // 2},
            "state folder",
            "measure",
            "0.5 GiB free, 1.1",
            "KILONODE_STATE_DIR",
        ),
        ({"cache_free_bytes": 0}, "cache folder", "measure", "0.0 GiB free", "KILONODE_CACHE_DIR"),
        ({"runs_free_bytes": 0}, "run folder", "measure", "runs has 0.0 GiB", "--runs-dir"),
        ({"addresses_refusal": "every /24 is routed"}, "addresses", "measure", "routed", "kilonode clean"),
        ({"iptables_refusal": "no xt_statistic"}, "iptables mode", "iptables", "xt_statistic", "nft_compat"),
        ({"engine": "", "engine_refusal": "no docker"}, "docker", "kind", "no docker", "kilonode docker"),
        ({"kind_missing": ("debootstrap", "kind")}, "docker", "kind", "debootstrap, kind", "setup --kind"),
        ({"profiler": False}, "valgrind", "stages", "not on PATH", "setup --profiler"),
        (
            {"binaries_missing": ("etcd 3.7.0",), "download_refusal": "no route", "build_refusal": "no go"},
            "executables",
            "measure",
            "etcd 3.7.0; no download: no route; no build: no go",
            "internet access",
        ),
    ],
)
def test_what_is_bad_blocks_what_needs_it(
    changed: dict[str, Any], name: str, blocks: str, found: str, remedy: str
) -> None:
    facts = with_facts(**changed)
    (bad,) = bad_of(facts)
    assert (bad.name, bad.blocks) == (name, blocks)
    assert found in bad.found
    assert remedy in bad.remedy
    able = abilities(examine(facts, ASKED), facts, ASKED)
    assert [each.why_not for each in able if not each.can]
    assert {each.why_not for each in able if not each.can} == {name}
    assert able[0].can


@pytest.mark.parametrize(
    ("changed", "name", "found"),
    [
        ({"may_lower_oom_scores": False}, "OOM scores", "CAP_SYS_RESOURCE"),
        ({"nft": "1.1.0"}, "nft's version", "1.0.6"),
        ({"exits_refusal": "no taskstats"}, "exit accounting", "lower bound"),
        ({"swap_bytes": GIB}, "swap", "1,024 MiB"),
        ({"binaries_missing": ("etcd 3.7.0",)}, "executables", "1 are not here"),
        (
            {"binaries_missing": ("etcd 3.7.0",), "download_refusal": "", "build_refusal": "no go"},
            "executables",
            "can be downloaded",
        ),
        (
            {"binaries_missing": ("etcd 3.7.0",), "download_refusal": "no route", "build_refusal": ""},
            "executables",
            "built with Go",
        ),
        ({"dead": ("a1b2c3",)}, "leftovers", "a1b2c3"),
        ({"alive": ("a1b2c3",)}, "quiet", "runs that live: a1b2c3"),
        ({"load": 5.0}, "quiet", "load 5.0 on 2 CPUs"),
    ],
)
def test_what_only_shifts_figures_is_a_warning(changed: dict[str, Any], name: str, found: str) -> None:
    facts = with_facts(**changed)
    (warning,) = warnings_of(facts)
    assert warning.name == name
    assert found in warning.found
    assert warning.remedy
    assert bad_of(facts) == []


def test_what_takes_root_is_not_called_bad_without_it() -> None:
    refused = {"links_refusal": "no", "nft_refusal": "no", "cgroup_refusal": "no", "iptables_refusal": "no"}
    facts = with_facts(is_root=False, **refused)
    assert [check.name for check in bad_of(facts)] == ["privileges"]
    (warning,) = warnings_of(facts)
    assert "not tried" in warning.found
    able = abilities(examine(facts, ASKED), facts, ASKED)
    assert {each.why_not for each in able if not each.can} == {"privileges"}


def test_a_larger_fleet_needs_more() -> None:
    facts = with_facts(memory_available_bytes=6 * GIB, state_free_bytes=int(1.5 * GIB))
    assert bad_of(facts) == []
    assert {check.name for check in bad_of(facts, Asked(nodes=100_000))} == {"memory", "state folder"}


def test_a_build_needs_much_disk() -> None:
    building = {"binaries_missing": ("etcd 3.7.0",), "download_refusal": "no route", "build_refusal": ""}
    (bad,) = bad_of(with_facts(**building, cache_free_bytes=10 * GIB))
    assert "15.1 are needed" in bad.found


def test_a_run_is_refused_with_everything_that_is_bad(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts = with_facts(is_root=False, packages_missing=("nftables",), engine="", profiler=False)
    monkeypatch.setattr(doctor.checks, "look", lambda runs, network_too: facts)
    with pytest.raises(MissingRequirementError) as caught:
        require_machine(tmp_path)
    assert caught.value.where == "privileges, packages"
    assert "real nodes need root" in caught.value.what
    assert "sudo" in caught.value.remedy
    assert "apt-get install nftables" in caught.value.remedy


def test_looking_finds_this_machine_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("KILONODE_STATE_DIR", "KILONODE_CACHE_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    facts = look(tmp_path / "runs", network_too=False)
    assert facts.memory_available_bytes > 0
    assert facts.state_free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
    assert facts.binaries_missing
    assert (facts.download_refusal, facts.build_refusal, facts.alive) == (None, None, ())
    assert list(tmp_path.iterdir()) == []


class TestCommand:
    @pytest.fixture
    def facts(self, monkeypatch: pytest.MonkeyPatch) -> list[Facts]:
        found = [GOOD]
        monkeypatch.setattr(cli.doctor, "look", lambda runs: found[-1])
        return found

    def test_a_machine_that_can(self, facts: list[Facts]) -> None:
        result = CliRunner().invoke(cli.app, ["doctor"])
        assert result.exit_code == 0
        assert "good    memory" in result.output
        assert "yes     pytest -k scenario --max-nodes 10000" in result.output
        assert "Remedy" not in result.output

    def test_one_that_can_not(self, facts: list[Facts]) -> None:
        facts.append(with_facts(nft_refusal="Could not process rule"))
        result = CliRunner().invoke(cli.app, ["doctor", "--max-nodes", "1k"])
        assert result.exit_code == cli.EXIT_MISSING
        assert (
            "bad     nft              rules as kube-proxy's are refused: Could not process" in result.output
        )
        assert "Remedy: load the modules" in result.output
        assert "no      pytest -k scenario --max-nodes 1000  (see nft)" in result.output

    def test_json(self, facts: list[Facts]) -> None:
        facts.append(with_facts(memory_available_bytes=GIB))
        result = CliRunner().invoke(cli.app, ["doctor", "--json"])
        assert result.exit_code == cli.EXIT_MISSING
        told = msgspec.json.decode(result.output, type=cli.doctor.Diagnosis)
        assert (told.ready, told.nodes) == (False, 10_000)
        assert [check.name for check in told.checks if check.state == "bad"] == ["memory"]
