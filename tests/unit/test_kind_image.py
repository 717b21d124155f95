"""The node image: named by everything that goes in, and its parts as the node's programs expect them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from framework import cli
from framework.binaries import Binaries, Binary
from framework.cluster.kind import archive, image, node_root, pod_images
from framework.cluster.kind.archive import Image, Layer, write_archive, write_layer
from framework.cluster.kind.image import (
    LABEL,
    find_node_image,
    image_components,
    image_tag,
    node_image_requests,
)
from framework.containers import DOCKER_HOST_ENV, PROVIDER_ENV, Engine
from framework.errors import KilonodeError, MissingRequirementError
from framework.ledger import STATE_ENV

BINARIES = Binaries()
TAGS = {
    name: f"registry.k8s.io/{name}:v1.37.2" for name in (*pod_images.CONTROL_PLANE, "kube-proxy", "coredns")
} | {"pause": "registry.k8s.io/pause:3.10.2"}


def some_binaries() -> list[Binary]:
    return [
        Binary(request.name, request.version, Path("/bin", request.name), "go-build", "go1.26.8", "0" * 64)
        for request in node_image_requests(BINARIES)
    ]


def a_program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


class TestTag:
    def test_it_names_the_kubernetes_release_and_a_digest(self) -> None:
        repository, _, tag = image_tag(some_binaries(), BINARIES).partition(":")
        assert repository == "localhost/kilonode/node"
        release, _, digest = tag.rpartition("-")
        assert release == f"v{BINARIES.control_plane_version()}"
        assert len(digest) == 12
        assert set(digest) <= set("0123456789abcdef")

    def test_the_same_input_has_the_same_name(self) -> None:
        assert image_tag(some_binaries(), BINARIES) == image_tag(some_binaries(), Binaries())

    @pytest.mark.parametrize("position", range(len(some_binaries())))
    def test_another_build_of_any_program_has_another(self, position: int) -> None:
        rebuilt = some_binaries()
        rebuilt[position] = dataclasses.replace(rebuilt[position], sha256="1" * 64)
        assert image_tag(rebuilt, BINARIES) != image_tag(some_binaries(), BINARIES)

    @pytest.mark.parametrize("module", [archive, image, node_root, pod_images])
    def test_so_has_another_recipe(
        self, module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        before = image_tag(some_binaries(), BINARIES)
        changed = tmp_path / "recipe.py"
        changed.write_bytes(Path(module.__file__).read_bytes() + b"# changed\n")
        monkeypatch.setattr(module, "__file__", str(changed))
        assert image_tag(some_binaries(), BINARIES) != before

    def test_kube_proxy_is_of_the_control_planes_release(self) -> None:
        versions = {request.name: request.version for request in node_image_requests(BINARIES)}
        assert versions["kube-proxy"] == versions["kubelet"] == versions["kubeadm"]
        assert set(versions) == set(image.PROGRAMS)


class TestFinding:
    @pytest.fixture
    def here(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Binary]:
        """The executables that are here."""
        found = {binary.name: binary for binary in some_binaries()}
        monkeypatch.setattr(Binaries, "find", lambda self, name, version: found.get(name))
        return found

    @pytest.fixture
    def engine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
        """It has every image."""
        a_program(tmp_path, "docker", "echo 0123456789ab")
        monkeypatch.setenv("PATH", str(tmp_path))
        return Engine("docker")

    def test_an_image_that_the_engine_has(self, here: dict[str, Binary], engine: Engine) -> None:
        assert find_node_image(engine, BINARIES) == image_tag(list(here.values()), BINARIES)

    def test_none_where_the_engine_has_it_not(
        self, here: dict[str, Binary], engine: Engine, tmp_path: Path
    ) -> None:
        a_program(tmp_path, "docker", "")
        assert find_node_image(engine, BINARIES) is None

    def test_none_where_an_executable_is_not_here(self, here: dict[str, Binary], engine: Engine) -> None:
        del here["kubeadm"]
        assert find_node_image(engine, BINARIES) is None


class TestComponents:
    @pytest.mark.parametrize("printed", ["", "<no value>"])
    def test_an_image_of_others_says_nothing(
        self, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a_program(tmp_path, "docker", f"echo '{printed}'")
        monkeypatch.setenv("PATH", str(tmp_path))
        assert image_components(Engine("docker"), "kindest/node") == ()

    def test_ours_says_what_is_in_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        nft = {
            "name": "nft",
            "version": "1.0.6-2",
            "source": "system package",
            "toolchain": "",
            "sha256": "0",
        }
        a_program(tmp_path, "docker", f"case \"$*\" in *{LABEL}*) echo '{json.dumps([nft])}' ;; esac")
        monkeypatch.setenv("PATH", str(tmp_path))
        (found,) = image_components(Engine("docker"), "kilonode/node:x")
        assert (found.name, found.version) == ("nft", "1.0.6-2")


class TestArchive:
    @pytest.fixture
    def layer(self, tmp_path: Path) -> Layer:
        program = a_program(tmp_path, "source", "exit")
        return write_layer(
            tmp_path / "layer.tar",
            programs={"/usr/bin/program": program},
            texts={"/etc/passwd": "root\n"},
            links={"/usr/bin/other": "program"},
            folders={"/tmp": 0o1777},  # noqa: S108
        )

    def test_a_layer_has_what_was_asked_for(self, layer: Layer) -> None:
        assert layer.sha256 == hashlib.sha256(layer.path.read_bytes()).hexdigest()
        with tarfile.open(layer.path) as tar:
            found = {entry.name: entry for entry in tar}
        assert set(found) == {"usr/bin/program", "etc/passwd", "usr/bin/other", "tmp"}
        assert found["usr/bin/program"].mode == 0o755
        assert found["usr/bin/other"].linkname == "program"
        assert found["tmp"].mode == 0o1777

    def test_the_same_input_gives_the_same_bytes(self, layer: Layer, tmp_path: Path) -> None:
        os.utime(tmp_path / "source", (0, 0))
        again = write_layer(
            tmp_path / "again.tar",
            programs={"/usr/bin/program": tmp_path / "source"},
            texts={"/etc/passwd": "root\n"},
            links={"/usr/bin/other": "program"},
            folders={"/tmp": 0o1777},  # noqa: S108
        )
        assert again.sha256 == layer.sha256

    def test_images_share_a_layers_file_and_have_settings_of_their_own(
        self, layer: Layer, tmp_path: Path
    ) -> None:
        images = [Image(f"name:{number}", (layer,), {"Entrypoint": [f"/{number}"]}) for number in range(2)]
        write_archive(tmp_path / "images.tar", images, "amd64")
        with tarfile.open(tmp_path / "images.tar") as tar:
            files = {entry.name: tar.extractfile(entry) for entry in tar}
            content = {name: file.read() for name, file in files.items() if file is not None}
        manifest = json.loads(content["manifest.json"])
        assert [entry["RepoTags"] for entry in manifest] == [["name:0"], ["name:1"]]
        assert [entry["Layers"] for entry in manifest] == [[layer.name]] * 2
        configs = [json.loads(content[entry["Config"]]) for entry in manifest]
        assert [config["config"] for config in configs] == [{"Entrypoint": ["/0"]}, {"Entrypoint": ["/1"]}]
        assert [config["rootfs"]["diff_ids"] for config in configs] == [[f"sha256:{layer.sha256}"]] * 2
        assert len(content) == 4


class TestPodImages:
    def a_kubeadm(self, folder: Path, tags: dict[str, str]) -> Path:
        return a_program(folder, "kubeadm", "\n".join(f"echo {tag}" for tag in tags.values()))

    def test_names_are_those_that_kubeadm_asks_for(self, tmp_path: Path) -> None:
        found = pod_images.image_names(self.a_kubeadm(tmp_path, TAGS), "1.37.2", "0.8.0")
        expected = {name: tag for name, tag in TAGS.items() if name != "coredns"}
        assert found == expected | {"kwok": "registry.k8s.io/kwok/kwok:v0.8.0"}

    def test_a_kubeadm_that_names_other_programs_is_refused(self, tmp_path: Path) -> None:
        tags = {name: tag for name, tag in TAGS.items() if name != "etcd"}
        with pytest.raises(KilonodeError, match="names no image of etcd"):
            pod_images.image_names(self.a_kubeadm(tmp_path, tags), "1.37.2", "0.8.0")


class TestNodeRoot:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """A node made of a Debian and of base files that are nearly nothing."""
        debian, base = tmp_path / "root", tmp_path / "base"
        for name in ("etc/systemd", "usr/bin"):
            (debian / name).mkdir(parents=True)
        (debian / "etc/systemd/journald.conf").write_text("[Journal]\n")
        (debian / "etc/machine-id").write_text("0")
        for name in ("usr/local/bin/entrypoint", "kind/bin/undo.sh", "etc/containerd/config.toml"):
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            (base / name).write_text("theirs")
            (base / name).chmod(0o444)
        kubelet = a_program(tmp_path, "kubelet", "exit")
        node_root.make_node(
            debian,
            base_files=base,
            executables={"kubelet": kubelet},
            pause=TAGS["pause"],
            kubernetes="1.37.2",
        )
        return debian

    def test_modes_are_kinds(self, root: Path) -> None:
        for name in (
            "usr/local/bin/entrypoint",
            "kind/bin/undo.sh",
            "kind/bin/load-images.sh",
            "usr/bin/kubelet",
        ):
            assert (root / name).stat().st_mode & 0o777 == 0o755
        assert (root / "etc/containerd/config.toml").stat().st_mode & 0o777 == 0o644

    def test_containerd_is_configured_for_what_this_node_has(self, root: Path) -> None:
        told = tomllib.loads((root / "etc/containerd/config.toml").read_text())
        assert told["version"] == 2
        cri = told["plugins"]["io.containerd.grpc.v1.cri"]
        assert cri["sandbox_image"] == TAGS["pause"]
        assert cri["restrict_oom_score_adj"] is True
        assert cri["containerd"]["runtimes"]["runc"]["options"] == {"SystemdCgroup": True}
        assert not list((root / "etc/cni/net.d").iterdir())

    def test_kinds_entrypoint_can_put_another_snapshotter_in(self, root: Path) -> None:
        assert 'snapshotter = "overlayfs"' in (root / "etc/containerd/config.toml").read_text()

    def test_every_link_of_its_services_leads_to_one(self, root: Path) -> None:
        wanted = root / "etc/systemd/system/multi-user.target.wants"
        assert {link.readlink().name for link in wanted.iterdir()} == {
            f"{unit}.service" for unit in ("kubelet", "containerd", "undo-mount-hacks", "kilonode-images")
        }
        assert (wanted / "kilonode-images.service").exists()

    def test_kind_finds_the_version_and_the_storage_class(self, root: Path) -> None:
        assert (root / "kind/version").read_text() == "v1.37.2"
        assert "kind: StorageClass" in (root / "kind/manifests/default-storage.yaml").read_text()
        assert not (root / "etc/machine-id").exists()

    @pytest.mark.parametrize(("kubeconfig", "loaded"), [(None, ["node"]), ("/c", ["node", "control-plane"])])
    def test_a_worker_loads_only_what_it_runs(
        self, kubeconfig: str | None, loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = node_root.LOAD_IMAGES.replace("touch ", ": ")
        load = a_program(tmp_path, "load", script.partition("\n")[2])
        a_program(tmp_path, "ctr", f'echo "$5" >> {tmp_path}/loaded')
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.delenv("KUBECONFIG", raising=False)
        if kubeconfig:
            monkeypatch.setenv("KUBECONFIG", kubeconfig)
        assert os.system(str(load)) == 0  # noqa: S605
        assert (tmp_path / "loaded").read_text().split() == [f"/kind/images/{name}.tar" for name in loaded]


class TestCommand:
    @pytest.fixture
    def programs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The only folder on PATH; nobody chose an engine."""
        folder = tmp_path / "bin"
        folder.mkdir()
        monkeypatch.setenv("PATH", str(folder))
        for variable in (PROVIDER_ENV, DOCKER_HOST_ENV):
            monkeypatch.delenv(variable, raising=False)
        return folder

    @pytest.fixture
    def build(self, monkeypatch: pytest.MonkeyPatch, programs: Path) -> Iterator[Callable[[], int]]:
        """Run ``kilonode kind-image`` with every executable here; gives the exit status."""
        monkeypatch.setattr(Binaries, "ensure_all", lambda self, requests, **_: tuple(some_binaries()))
        monkeypatch.setattr(sys, "argv", ["kilonode", "kind-image"])

        def start() -> int:
            with pytest.raises(SystemExit) as ended:
                cli.main()
            return int(ended.value.code or 0)

        with tempfile.TemporaryDirectory(prefix="kn-") as state:
            monkeypatch.setenv(STATE_ENV, state)
            yield start

    def test_without_an_engine_it_names_the_command_that_starts_one(
        self, build: Callable[[], int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert build() == cli.EXIT_MISSING
        assert "kilonode docker" in capsys.readouterr().err

    def test_an_image_that_is_here_needs_nothing_else(
        self, build: Callable[[], int], programs: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        a_program(programs, "docker", "echo 1048576")
        assert build() == 0
        assert f"ready: {image_tag(some_binaries(), BINARIES)} (1.0 MiB)" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("uid", "here", "says"),
        [
            (1000, ("debootstrap", "chroot", "tar", "go"), "run `kilonode kind-image` as root"),
            (0, ("chroot", "tar", "go"), "apt-get install debootstrap, or use kindest/node"),
            (0, ("debootstrap", "chroot", "tar"), "use kindest/node with internet access, or install Go"),
        ],
    )
    def test_what_a_build_needs_is_said(
        self, programs: Path, monkeypatch: pytest.MonkeyPatch, uid: int, here: tuple[str, ...], says: str
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        for name in here:
            a_program(programs, name, "exit")
        with pytest.raises(MissingRequirementError) as caught:
            image.require_builder()
        assert says in caught.value.remedy
