"""Memory cgroups on recorded trees, and the refusals that need no kernel."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from framework.cgroup import MemoryCgroup, detect_mode, is_within, memory_cgroup
from framework.errors import BadInputError, KilonodeError, MissingRequirementError
from framework.units import MIB

RECORDED_V2 = Path(__file__).parent / "recorded" / "cgroup_v2"


@pytest.fixture
def v2_root(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RECORDED_V2, tmp_path / "cgroup"))


def node(root: Path) -> MemoryCgroup:
    return memory_cgroup("kilonode/node-1", root)


def test_v2_counters() -> None:
    reading = node(RECORDED_V2).read()
    assert reading.charged_bytes == 513 * MIB
    assert reading.charged_bytes_peak == 1400 * MIB
    assert (reading.anonymous_bytes, reading.file_bytes, reading.kernel_bytes) == (
        356 * MIB,
        62 * MIB,
        94 * MIB,
    )
    assert reading.kernel_bytes_peak is None
    assert reading.limit_bytes == 1400 * MIB
    assert reading.oom_kills == 3


def test_v2_without_a_limit_and_on_a_kernel_without_a_peak(v2_root: Path) -> None:
    pod = memory_cgroup("kilonode/node-1/pod", v2_root)
    (pod.path / "memory.peak").unlink()
    reading = pod.read()
    assert reading.limit_bytes is None
    assert reading.charged_bytes_peak is None


def test_v2_sums_the_parts_of_kernel_memory_where_the_kernel_does_not(v2_root: Path) -> None:
    stat = node(v2_root).path / "memory.stat"
    lines = [line for line in stat.read_text().splitlines() if not line.startswith("kernel ")]
    stat.write_text("\n".join(lines))
    assert node(v2_root).read().kernel_bytes == 1179648 + 3403776 + 40960 + 8192 + 89 * MIB


def test_v2_limit_leaves_no_swap(v2_root: Path) -> None:
    (node(v2_root).path / "memory.swap.max").write_text("max")
    node(v2_root).set_limit(2048 * MIB)
    assert (node(v2_root).path / "memory.max").read_text() == str(2048 * MIB)
    assert (node(v2_root).path / "memory.swap.max").read_text() == "0"


def test_v2_create_enables_the_controller_in_each_ancestor(v2_root: Path) -> None:
    made = memory_cgroup("kilonode/run-2/node-7", v2_root)
    (v2_root / "kilonode" / "run-2").mkdir()
    (v2_root / "kilonode" / "run-2" / "cgroup.subtree_control").write_text("\n")
    made.create()
    assert made.path.is_dir()
    assert (v2_root / "cgroup.subtree_control").read_text() == "cpuset cpu io memory pids\n"
    for parent in ("kilonode", "kilonode/run-2"):
        assert (v2_root / parent / "cgroup.subtree_control").read_text() == "+memory"


def test_children_and_pids_include_those_below() -> None:
    found = node(RECORDED_V2)
    assert [child.kernel_path for child in found.children] == ["/kilonode/node-1/pod"]
    assert sorted(found.pids()) == [4101, 4102, 4103]
    assert [cgroup.path.name for cgroup in found.walk()] == ["pod", "node-1"]


def test_the_mode_is_the_one_that_has_the_memory_controller(tmp_path: Path) -> None:
    assert detect_mode(RECORDED_V2) == "v2"
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "cgroup.procs").touch()
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified" / "cgroup.controllers").write_text("cpu\n")
    assert detect_mode(tmp_path) == "v1"


def test_a_hybrid_machine_with_memory_in_version_2(tmp_path: Path) -> None:
    shutil.copytree(RECORDED_V2, tmp_path / "unified")
    assert node(tmp_path).tree == tmp_path / "unified"


def test_no_controller_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu io\n")
    with pytest.raises(MissingRequirementError, match=r"no memory cgroup controller.*cgroup_enable=memory"):
        memory_cgroup("kilonode", tmp_path)


@pytest.mark.parametrize("name", ["", "/kilonode", "kilonode/", "../system.slice", "a//b", "a/./b"])
def test_names_that_leave_the_tree_are_refused(name: str) -> None:
    with pytest.raises(BadInputError, match="no name of a cgroup"):
        memory_cgroup(name, RECORDED_V2)


def test_a_limit_must_be_positive(v2_root: Path) -> None:
    with pytest.raises(BadInputError):
        node(v2_root).set_limit(0)


def test_reading_what_does_not_exist_is_explained() -> None:
    with pytest.raises(KilonodeError, match="does not exist or was removed"):
        memory_cgroup("kilonode/node-2", RECORDED_V2).read()
    assert memory_cgroup("kilonode/node-2", RECORDED_V2).pids() == ()


def test_without_privilege_the_remedy_is_root(v2_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(MissingRequirementError, match="Remedy: run as root"):
        memory_cgroup("kilonode/node-9", v2_root).create()


def test_a_parent_with_processes_is_named(v2_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object, **__: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "write_text", busy)
    with pytest.raises(KilonodeError, match=r"processes of its own.*kilonode"):
        memory_cgroup("kilonode/node-9", v2_root).create()


def v1_trees(root: Path) -> list[Path]:
    """The top of four controllers' trees; cpu and cpuacct are one, as on most machines."""
    for name in ("memory", "cpu,cpuacct", "cpuset", "unified"):
        (root / name).mkdir()
        (root / name / "cgroup.procs").touch()
    for link in ("cpu", "cpuacct"):
        (root / link).symlink_to("cpu,cpuacct")
    return [root / name for name in ("cpu,cpuacct", "cpuset", "unified")]


def test_v1_pods_get_a_place_in_every_tree(tmp_path: Path) -> None:
    others = v1_trees(tmp_path)
    cpuset = tmp_path / "cpuset"
    (cpuset / "kilonode" / "node-1").mkdir(parents=True)
    for folder, text in (("", "0-1\n"), ("kilonode", "0\n"), ("kilonode/node-1", "\n")):
        (cpuset / folder / "cpuset.cpus").write_text(text)
        (cpuset / folder / "cpuset.mems").write_text("0\n")
    assert node(tmp_path).delegate() == node(tmp_path)
    assert all((tree / "kilonode" / "node-1").is_dir() for tree in others)
    assert (cpuset / "kilonode" / "node-1" / "cpuset.cpus").read_text() == "0\n"
    assert not (tmp_path / "memory" / "kilonode").exists()


def test_v1_what_pods_left_in_every_tree_is_removed(tmp_path: Path) -> None:
    others = v1_trees(tmp_path)
    for tree in (tmp_path / "memory", *others):
        (tree / "kilonode" / "node-1" / "kubepods" / "pod1").mkdir(parents=True)
    node(tmp_path).remove()
    assert not any((tree / "kilonode" / "node-1").exists() for tree in (tmp_path / "memory", *others))
    assert all((tree / "kilonode").is_dir() for tree in others)


def test_v2_pods_get_controllers_and_daemons_a_child(v2_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = node(v2_root)
    for name in ("", "kilonode", "kilonode/node-1"):
        (v2_root / name / "cgroup.subtree_control").write_text("memory\n")
    (v2_root / "cgroup.controllers").write_text("cpuset cpu io memory pids rdma\n")
    written: list[tuple[Path, str]] = []
    monkeypatch.setattr(Path, "write_text", lambda path, text: written.append((path, text)))
    home = made.delegate()
    assert home.path == made.path / "daemons"
    assert home.path.is_dir()
    assert home.kernel_path == "/kilonode/node-1/daemons"
    folders = (v2_root, v2_root / "kilonode", made.path)
    assert written == [(folder / "cgroup.subtree_control", "+cpu +cpuset +io +pids") for folder in folders]


def test_a_reader_reads_again_without_opening(v2_root: Path) -> None:
    with node(v2_root).reader() as reader:
        assert reader.read().charged_bytes == 513 * MIB
        (node(v2_root).path / "memory.current").write_text(f"{600 * MIB}\n")
        assert reader.read().charged_bytes == 600 * MIB
        open_before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) < open_before


def test_within_is_by_whole_names() -> None:
    assert is_within("/kilonode/node-1/pod", "/kilonode/node-1")
    assert is_within("/kilonode/node-1", "/kilonode/node-1")
    assert is_within("/kilonode", "/")
    assert not is_within("/kilonode/node-10", "/kilonode/node-1")
