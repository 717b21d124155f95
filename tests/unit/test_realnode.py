"""What a real node's daemons are told, and its private executables."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.realnode import CopyPool
from framework.realnode.config import (
    containerd_config,
    containerd_socket,
    kube_proxy_config,
    kubelet_config,
    merged,
)
from framework.realnode.image import IMAGE
from framework.realnode.private_copy import Executables, shared_libraries

FOLDER = Path("/state/runs/123456/nodes/real-1")
TREES: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        st.integers() | st.lists(st.integers(), max_size=2),
        lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


def kube_proxy(**overrides: Any) -> dict[str, Any]:
    text = kube_proxy_config(
        name="real-1",
        address="198.18.0.10",
        kubeconfig=FOLDER / "kubeconfig",
        mode="nftables",
        oom_score_adj=-999,
        overrides=overrides,
    )
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def kubelet(**options: Any) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(
        kubelet_config(FOLDER, ca_file="/state/ca.crt", oom_score_adj=-999, **options)
    )
    return document


def containerd(*, restrict_oom_scores: bool) -> dict[str, Any]:
    return tomllib.loads(containerd_config(FOLDER, restrict_oom_scores=restrict_oom_scores))


class TestKubeProxy:
    def test_programs_nftables_for_its_node(self) -> None:
        document = kube_proxy()
        assert (document["kind"], document["mode"]) == ("KubeProxyConfiguration", "nftables")
        assert document["hostnameOverride"] == "real-1"
        assert document["clientConnection"] == {"kubeconfig": str(FOLDER / "kubeconfig")}
        assert document["metricsBindAddress"] == "198.18.0.10:10249"
        assert document["oomScoreAdj"] == kubelet()["oomScoreAdj"] == -999

    def test_leaves_the_hosts_connection_tracking_alone(self) -> None:
        assert kube_proxy()["conntrack"] == {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        }

    def test_overrides_are_merged_and_not_swapped_in(self) -> None:
        document = kube_proxy(nftables={"syncPeriod": "10s"}, conntrack={"min": 1}, mode="iptables")
        assert document["nftables"] == {"syncPeriod": "10s"}
        assert (document["conntrack"]["min"], document["conntrack"]["maxPerCore"]) == (1, 0)
        assert document["mode"] == "iptables"
        assert kube_proxy()["mode"] == "nftables"


class TestMerging:
    @settings(deadline=None)
    @given(TREES)
    def test_nothing_over_something_changes_nothing(self, tree: dict[str, Any]) -> None:
        assert merged(tree, {}) == tree
        assert merged({}, tree) == tree
        assert merged(tree, tree) == tree

    @settings(deadline=None)
    @given(TREES, TREES, TREES)
    def test_the_last_one_wins_however_it_is_grouped(
        self, base: dict[str, Any], middle: dict[str, Any], last: dict[str, Any]
    ) -> None:
        result = merged(merged(base, middle), last)
        assert merged(result, last) == result
        for key, value in last.items():
            assert isinstance(value, dict) or result[key] == value
        assert set(result) == {*base, *middle, *last}

    def test_lists_and_scalars_are_replaced_and_inputs_kept(self) -> None:
        base = {"list": [1, 2], "map": {"a": 1, "b": {"c": 2}}, "scalar": {"x": 1}}
        over = {"list": [3], "map": {"b": {"d": 4}}, "scalar": None}
        assert merged(base, over) == {
            "list": [3],
            "map": {"a": 1, "b": {"c": 2, "d": 4}},
            "scalar": None,
        }
        assert base["map"] == {"a": 1, "b": {"c": 2}}


class TestKubelet:
    def test_keeps_out_of_the_hosts_cgroups(self) -> None:
        document = kubelet()
        assert document["cgroupsPerQOS"] is False
        assert document["enforceNodeAllocatable"] == []
        assert document["failCgroupV1"] is False

    def test_puts_pods_below_its_nodes_cgroup(self) -> None:
        document = kubelet(pods_cgroup="/kilonode-123456/real-1")
        assert document["cgroupsPerQOS"] is True
        assert document["cgroupRoot"] == "/kilonode-123456/real-1"
        assert set(document["evictionHard"]) == {"memory.available"}
        assert document["cpuCFSQuota"] is False
        assert "cgroupRoot" not in kubelet()

    def test_keeps_its_pods_logs_in_its_folder(self) -> None:
        assert Path(kubelet()["podLogsDir"]).is_relative_to(FOLDER)

    def test_has_productions_lease_and_its_own_containerd(self) -> None:
        document = kubelet()
        assert document["nodeLeaseDurationSeconds"] == 40
        assert document["containerRuntimeEndpoint"] == f"unix://{containerd_socket(FOLDER)}"

    def test_serves_nobody_who_is_unknown(self) -> None:
        document = kubelet()
        assert document["authentication"]["anonymous"] == {"enabled": False}
        assert document["authentication"]["x509"] == {"clientCAFile": "/state/ca.crt"}
        assert document["address"] == "127.0.0.1"
        assert document["readOnlyPort"] == 0


def test_containerd_stays_below_the_nodes_folder() -> None:
    document = containerd(restrict_oom_scores=True)
    cri = document["plugins"]["io.containerd.grpc.v1.cri"]
    places = [
        document["root"],
        document["state"],
        document["grpc"]["address"],
        cri["cni"]["bin_dir"],
        cri["cni"]["conf_dir"],
    ]
    assert all(Path(place).is_relative_to(FOLDER) for place in places)
    assert len(set(places)) == len(places)
    assert document["grpc"]["address"] == str(containerd_socket(FOLDER))
    assert cri["containerd"]["snapshotter"] == "native"


@pytest.mark.parametrize("restricted", [True, False])
def test_containerd_runs_pods_of_the_local_image(restricted: bool) -> None:
    cri = containerd(restrict_oom_scores=restricted)["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["sandbox_image"] == IMAGE
    assert cri["restrict_oom_score_adj"] is restricted


class TestExecutables:
    @pytest.fixture
    def program(self, tmp_path: Path) -> Path:
        path = tmp_path / "installed"
        path.write_bytes(b"\x7fELF whatever")
        return path

    def test_a_copy_is_executable_and_equal_but_another_file(self, program: Path, tmp_path: Path) -> None:
        copy = CopyPool(tmp_path / "pool").take(program)
        assert copy.read_bytes() == program.read_bytes()
        assert copy.stat().st_mode & 0o111 == 0o111
        assert not copy.samefile(program)

    def test_a_copy_is_handed_on_only_after_it_was_given_back(self, program: Path, tmp_path: Path) -> None:
        pool = CopyPool(tmp_path / "pool")
        first, second = pool.take(program), pool.take(program)
        assert first != second
        pool.give_back(program, first)
        assert pool.take(program) == first
        assert pool.take(program) not in {first, second}

    def test_a_node_has_every_library_of_its_executables(self, tmp_path: Path) -> None:
        shell = Path("/bin/sh")
        copies = Executables(CopyPool(tmp_path / "pool"), tmp_path / "node", "charged")
        copies.take([("sh", shell), ("again", shell)])
        assert {link.name for link in copies.bin.iterdir()} == {"sh", "again"}
        assert {link.name for link in copies.lib.iterdir()} == {lib.name for lib in shared_libraries(shell)}
        assert any(link.name.startswith("libc.") for link in copies.lib.iterdir())
        assert all(link.resolve().is_relative_to(tmp_path) for link in copies.lib.iterdir())

    def test_the_next_node_has_the_last_ones_copies(self, program: Path, tmp_path: Path) -> None:
        pool = CopyPool(tmp_path / "pool")
        for name in ("first", "second"):
            copies = Executables(pool, tmp_path / name, "charged")
            copies.take([("program", program)])
            copies.give_back()
        assert len(list((tmp_path / "pool").iterdir())) == 1

    def test_a_static_program_has_no_library(self, program: Path) -> None:
        assert shared_libraries(program) == frozenset()

    def test_text_that_belongs_to_the_host_is_the_hosts_own_file(self, program: Path, tmp_path: Path) -> None:
        node = Executables(CopyPool(tmp_path / "pool"), tmp_path / "node", "host")
        node.take([("program", program), ("sh", Path("/bin/sh"))])
        assert (node.bin / "program").samefile(program)
        assert (node.bin / "sh").samefile("/bin/sh")
        assert any(link.name.startswith("libc.") for link in node.lib.iterdir())
        assert not (tmp_path / "pool").exists()
        node.give_back()
