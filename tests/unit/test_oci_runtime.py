"""What a container is asked for is cut down to what this machine can give, and nothing else is changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from framework import oci_runtime
from framework.oci_runtime import CAPABILITIES, capability_names, config_path, permitted
from framework.process import CAP_SYS_RESOURCE

HERE = frozenset({"CAP_CHOWN", "CAP_KILL"})


def a_process(**fields: Any) -> dict[str, Any]:
    return {"args": ["/sbin/init"], **fields}


class TestPermitted:
    def test_capabilities_that_are_missing_are_taken_out_of_every_set(self) -> None:
        asked = {"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"], "ambient": None}
        config = {"process": a_process(capabilities=asked), "root": {"path": "rootfs"}}
        assert permitted(config, capabilities=HERE, oom_score_adj=0) == {
            "process": a_process(capabilities={"bounding": ["CAP_CHOWN"], "ambient": []}),
            "root": {"path": "rootfs"},
        }

    @pytest.mark.parametrize(("asked", "given"), [(-999, 3), (0, 3), (3, 3), (1000, 1000)])
    def test_a_score_is_raised_but_never_lowered(self, asked: int, given: int) -> None:
        config = {"process": a_process(oomScoreAdj=asked)}
        found = permitted(config, capabilities=HERE, oom_score_adj=3)
        assert found["process"]["oomScoreAdj"] == given

    def test_no_score_is_made_up(self) -> None:
        assert permitted(a_process(), capabilities=HERE, oom_score_adj=3) == a_process()

    def test_limits_are_inherited(self) -> None:
        limits = [{"type": "RLIMIT_NOFILE", "hard": 1048576, "soft": 1048576}]
        assert permitted(a_process(rlimits=limits), capabilities=HERE, oom_score_adj=0) == a_process()

    def test_what_was_given_is_not_changed(self) -> None:
        config = {"process": a_process(rlimits=[], capabilities={"bounding": ["CAP_BPF"]})}
        before = json.dumps(config)
        permitted(config, capabilities=HERE, oom_score_adj=0)
        assert json.dumps(config) == before


class TestConfigPath:
    @pytest.mark.parametrize(
        ("arguments", "path"),
        [
            (["--root", "/r", "create", "--bundle", "/b", "--pid-file", "/b/p", "ID"], "/b/config.json"),
            (["run", "-b", "/b", "ID"], "/b/config.json"),
            (["create", "ID"], "config.json"),
            (["exec", "--process", "/p.json", "--detach", "ID"], "/p.json"),
            (["exec", "-p", "/p.json", "ID"], "/p.json"),
        ],
    )
    def test_of_a_command_that_starts_a_process(self, arguments: list[str], path: str) -> None:
        assert config_path(arguments) == Path(path)

    @pytest.mark.parametrize("arguments", [["start", "ID"], ["kill", "ID", "9"], ["exec", "ID", "ls"], []])
    def test_of_others_there_is_none(self, arguments: list[str]) -> None:
        assert config_path(arguments) is None


def test_names_follow_the_numbers_of_the_kernel() -> None:
    assert capability_names(1 << CAP_SYS_RESOURCE) == {"CAP_SYS_RESOURCE"}
    assert capability_names(0b100001) == {"CAP_CHOWN", "CAP_KILL"}
    assert len(set(CAPABILITIES.split())) == 41


def test_it_becomes_runc_with_the_same_arguments_and_a_config_that_this_machine_can_give(
    tmp_path: Path,
) -> None:
    runc = tmp_path / "runc"
    runc.write_text('#!/bin/sh\necho "$@"\n')
    runc.chmod(0o755)
    every = [f"CAP_{name}" for name in CAPABILITIES.split()]
    config = {"process": a_process(capabilities={"bounding": every}, rlimits=[], oomScoreAdj=-1000)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = subprocess.run(
        [
            *(sys.executable, "-I", "-S", str(oci_runtime.__file__), str(runc)),
            *("create", "--bundle", str(tmp_path), "a name"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"create --bundle {tmp_path} a name\n"
    process = json.loads((tmp_path / "config.json").read_text())["process"]
    own_score = int(Path(f"/proc/{os.getpid()}/oom_score_adj").read_text())
    assert process["oomScoreAdj"] == own_score
    assert "rlimits" not in process
    assert set(process["capabilities"]["bounding"]) <= set(every)
