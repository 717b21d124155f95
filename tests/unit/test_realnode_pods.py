"""Ballast pods: their image and what the API server is told of them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.errors import MissingRequirementError
from framework.oom_scores import burstable_score
from framework.realnode import pods
from framework.realnode.image import IMAGE, ballast_command, image_archive, image_files
from framework.realnode.pods import pod_manifest
from framework.spec import Ballast
from framework.units import GIB, MIB

MACHINE_BYTES = 24 * GIB
NODE_BYTES = 700 * MIB
FILES = {"bin/sh": b"\x7fELF shell", "bin/dd": b"\x7fELF dd", "lib/libc.so.6": b"\x7fELF libc"}


def a_pod(**changes: Any) -> Ballast:
    sound: dict[str, Any] = {"name": "web", "kind": "besteffort", "memory_bytes": 60 * MIB, "form": "pod"}
    return Ballast(**(sound | changes))


def members(archive: bytes) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = {}
        for entry in tar:
            file = tar.extractfile(entry) if entry.isreg() else None
            found[entry.name] = (entry, file.read() if file else b"")
        return found


class TestImage:
    def test_what_runs_in_it_comes_from_this_machine_with_its_libraries(self) -> None:
        files = image_files()
        assert {"bin/sh", "bin/dd", "bin/sleep", "bin/pause"} <= set(files)
        assert any("libc.so" in name for name in files)
        assert any("ld-linux" in name for name in files)
        assert all(data.startswith(b"\x7fELF") for data in files.values())
        assert files["bin/pause"] == files["bin/sleep"]
        assert not any(name.startswith("/") for name in files)

    def test_a_missing_program_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "which", lambda name: None)
        with pytest.raises(MissingRequirementError, match="no program 'sh'"):
            image_files()

    def test_each_digest_is_that_of_the_bytes(self) -> None:
        found = members(image_archive(FILES, [a_pod()], "amd64"))
        (manifest,) = json.loads(found["manifest.json"][1])
        config = found[manifest["Config"]][1]
        assert manifest["Config"] == f"{hashlib.sha256(config).hexdigest()}.json"
        assert manifest["RepoTags"] == [IMAGE]
        (layer,) = manifest["Layers"]
        described = json.loads(config)
        assert described["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(found[layer][1]).hexdigest()}"]
        assert (described["os"], described["architecture"]) == ("linux", "amd64")
        assert described["config"]["Entrypoint"] == ["/bin/pause", "infinity"]

    def test_each_pod_finds_its_programs_under_its_own_name(self) -> None:
        found = members(image_archive(FILES, [a_pod(), a_pod(name="db")], "amd64"))
        layer = members(found["layer.tar"][1])
        for program in ("sh", "dd", "sleep"):
            for name in ("web", "db"):
                link = layer[f"{program}/{name}"][0]
                assert link.issym()
                assert link.linkname == f"/bin/{program}"
        assert layer["hold"][0].isfifo()
        assert {name: layer[name][1] for name in FILES} == FILES
        assert all(layer[name][0].mode & 0o111 == 0o111 for name in FILES)

    @given(st.permutations(["web", "db", "cache"]))
    def test_equal_contents_give_equal_bytes(self, names: list[str]) -> None:
        archive = image_archive(FILES, [a_pod(name=name) for name in names], "arm64")
        backwards = dict(reversed(FILES.items()))
        assert archive == image_archive(backwards, [a_pod(name=n) for n in sorted(names)], "arm64")

    @pytest.mark.parametrize("content", ["anonymous", "page_cache"])
    def test_the_commands_are_sound_shell(self, content: str) -> None:
        shell, option, script = ballast_command(a_pod(content=content))
        assert (shell, option) == ("/sh/web", "-c")
        assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0

    def test_anonymous_memory_is_held_by_one_process_with_the_pods_name(self) -> None:
        script = ballast_command(a_pod(memory_bytes=12345678))[2]
        assert script.startswith("exec /dd/web ")
        assert " bs=12345678 count=1 " in script

    def test_a_cached_file_is_not_smaller_than_asked(self) -> None:
        assert " count=3 " in ballast_command(a_pod(content="page_cache", memory_bytes=2 * MIB + 1))[2]
        assert " count=2 " in ballast_command(a_pod(content="page_cache", memory_bytes=2 * MIB))[2]


class TestManifest:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pods, "memory_total_bytes", lambda: MACHINE_BYTES)

    def manifest(self, **changes: Any) -> dict[str, Any]:
        return pod_manifest(a_pod(**changes), "real-1-web", "real-1", NODE_BYTES)

    def resources(self, **changes: Any) -> dict[str, dict[str, str]]:
        (container,) = self.manifest(**changes)["spec"]["containers"]
        resources: dict[str, dict[str, str]] = container["resources"]
        return resources

    def test_is_bound_to_its_node_and_needs_nothing_of_the_cluster(self) -> None:
        spec = self.manifest()["spec"]
        assert (spec["nodeName"], spec["hostNetwork"]) == ("real-1", True)
        assert spec["automountServiceAccountToken"] is False
        assert spec["containers"][0]["imagePullPolicy"] == "Never"

    def test_best_effort_asks_for_nothing(self) -> None:
        assert self.resources() == {}

    def test_guaranteed_requests_its_limits_with_room_for_its_start(self) -> None:
        resources = self.resources(kind="guaranteed")
        assert resources["requests"] == resources["limits"]
        assert set(resources["limits"]) == {"cpu", "memory"}
        assert int(resources["limits"]["memory"]) == 60 * MIB + pods.GUARANTEED_OVERHEAD_BYTES

    @given(st.integers(1, NODE_BYTES))
    def test_a_burstable_pods_score_is_that_of_a_machine_of_the_nodes_size(self, asked: int) -> None:
        pod = a_pod(kind="burstable", memory_bytes=NODE_BYTES, request_bytes=asked)
        resources = pods._resources(pod, NODE_BYTES, MACHINE_BYTES)
        assert set(resources) == {"requests"}
        requested = int(resources["requests"]["memory"])
        assert burstable_score(requested, MACHINE_BYTES) == burstable_score(asked, NODE_BYTES)

    def test_a_burstable_pod_requests_half_of_what_it_holds(self) -> None:
        resources = self.resources(kind="burstable")
        assert int(resources["requests"]["memory"]) == -(-30 * MIB * MACHINE_BYTES // NODE_BYTES)


class TestObstacle:
    def test_a_refusal_of_runc_is_the_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise MissingRequirementError("unable to apply caps", remedy="give it CAP_SYS_RESOURCE")

        class Anything:
            path = None

            def system(self, name: str) -> Anything:
                return self

        monkeypatch.setattr(pods, "_run_one_container", refuse)
        anything: Any = Anything()
        assert "unable to apply caps" in str(pods.obstacle(anything, anything))
