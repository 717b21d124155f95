"""The cache gives back only what was put in, and notices at once when it is not."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

import msgspec
import pytest

from framework.binaries import Binary, DiskFullError, Request
from framework.binaries import store as store_module
from framework.binaries.model import BinarySource
from framework.binaries.store import Metadata, Store, default_root, disk_full_as_error, require_free_space

REQUEST = Request("kube-proxy", "1.35.0")
CONTENT = b"#!/bin/sh\necho 'Kubernetes v1.35.0'\n"
GO_BUILD_INFO = b"\xff Go buildinf:" + bytes((8, 2)) + bytes(16)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, "linux-amd64")


def put(store: Store, content: bytes = CONTENT, source: BinarySource = "download") -> Binary:
    staged = store.staging(REQUEST) / "staged"
    staged.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return store.install(staged, REQUEST, source=source, sha256=sha256, url="http://example.invalid/file")


def metadata_of(binary: Binary) -> Metadata:
    path = binary.path.with_name(f"{binary.path.name}.json")
    return msgspec.json.decode(path.read_bytes(), type=Metadata)


def test_an_empty_cache_has_nothing(store: Store) -> None:
    assert store.find(REQUEST) is None
    assert store.installed() == ()


def test_what_was_installed_is_found(store: Store) -> None:
    binary = put(store)
    assert store.find(REQUEST) == binary
    assert store.installed() == (binary,)
    assert binary.path.read_bytes() == CONTENT
    assert os.access(binary.path, os.X_OK)
    assert metadata_of(binary).url == "http://example.invalid/file"


def test_the_toolchain_is_read_from_the_executable_and_keeps_builds_apart(store: Store) -> None:
    image = b"\x7fELF" + bytes(12) + GO_BUILD_INFO + bytes((8,)) + b"go1.26.8" + bytes(64)
    binary = put(store, image, "go-build")
    assert binary.toolchain == "go1.26.8"
    assert binary.path.parent.name == "go-build-go1.26.8"


def test_a_download_is_preferred_to_a_build(store: Store) -> None:
    put(store, CONTENT + b"# built\n", "go-build")
    download = put(store)
    assert store.find(REQUEST) == download


def test_a_warm_start_takes_no_digest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = put(store)

    def refuse(path: Path) -> str:
        raise AssertionError(f"the digest of {path} was taken again")

    monkeypatch.setattr(store_module, "sha256_of", refuse)
    assert store.find(REQUEST) == binary


def test_a_touched_file_is_verified_once_more(store: Store) -> None:
    binary = put(store)
    os.utime(binary.path, ns=(1, 1))
    assert store.find(REQUEST) == binary
    assert metadata_of(binary).verified.mtime_ns == 1


def test_an_altered_file_is_not_given_and_is_removed_under_the_lock(store: Store) -> None:
    binary = put(store)
    binary.path.write_bytes(CONTENT + b"rm -rf /\n")
    assert store.find(REQUEST) is None
    assert binary.path.exists()
    store.discard_damaged(REQUEST)
    assert not binary.path.exists()
    assert store.installed() == ()


def test_an_executable_without_metadata_is_not_there(store: Store) -> None:
    binary = put(store)
    binary.path.with_name("kube-proxy.json").unlink()
    assert store.find(REQUEST) is None


def test_metadata_without_executable_is_not_there(store: Store) -> None:
    put(store).path.unlink()
    assert store.find(REQUEST) is None


def test_metadata_that_broke_off_is_taken_as_absent(store: Store) -> None:
    binary = put(store)
    binary.path.with_name("kube-proxy.json").write_text('{"format": 1')
    assert store.find(REQUEST) is None


def test_another_platform_is_kept_apart(store: Store) -> None:
    put(store)
    assert Store(store.root, "linux-arm64").find(REQUEST) is None


def test_a_lock_that_is_held_is_waited_for(store: Store) -> None:
    waits: list[str] = []
    released = threading.Event()
    taken = threading.Event()

    def hold() -> None:
        with store.locked("one", lambda: None):
            taken.set()
            released.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(10)

    def on_wait() -> None:
        waits.append("waited")
        released.set()

    with store.locked("one", on_wait):
        assert waits
    holder.join()


def test_a_lock_is_released_after_a_failure(store: Store) -> None:
    with pytest.raises(ValueError, match="broken"), store.locked("one", lambda: None):
        raise ValueError("broken")
    with store.locked("one", lambda: pytest.fail("it was still held")):
        pass


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KILONODE_CACHE_DIR", str(tmp_path))
    assert default_root() == tmp_path


def test_a_full_disk_is_named() -> None:
    with (
        pytest.raises(DiskFullError, match=r"/var/cache/x.*KILONODE_CACHE_DIR"),
        disk_full_as_error(Path("/")),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "/var/cache/x")


def test_other_errors_of_the_system_keep_their_traceback() -> None:
    with pytest.raises(PermissionError), disk_full_as_error(Path("/")):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_free_space_is_asked_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    require_free_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(DiskFullError, match="MiB are needed"):
        require_free_space(tmp_path / "not" / "yet", 1 << 60)
