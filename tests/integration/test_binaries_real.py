"""The real executables, from the cache or fetched, say what they are."""

from __future__ import annotations

import msgspec
import pytest

from framework.binaries import Binaries
from framework.binaries.store import Metadata
from framework.process import run


@pytest.fixture(scope="module")
def binaries() -> Binaries:
    return Binaries()


@pytest.mark.parametrize("version", ["1.35.0", "1.37.2"])
def test_a_real_kube_proxy_reports_its_version(binaries: Binaries, version: str) -> None:
    kube_proxy = binaries.get("kube-proxy", version)
    assert run([kube_proxy.path, "--version"]).text == f"Kubernetes v{version}\n"
    assert kube_proxy.component().version == version
    assert kube_proxy.toolchain.startswith("go1.")


def test_the_metadata_beside_a_real_binary_describes_it(binaries: Binaries) -> None:
    kube_proxy = binaries.get("kube-proxy", "1.35.0")
    if kube_proxy.source == "explicit path":
        pytest.skip("an explicit path has no metadata")
    recorded = msgspec.json.decode(kube_proxy.path.with_name("kube-proxy.json").read_bytes(), type=Metadata)
    assert recorded.sha256 == kube_proxy.sha256
    assert recorded.size_bytes == kube_proxy.path.stat().st_size


@pytest.mark.parametrize("name", ["nft", "containerd", "containerd-shim-runc-v2", "runc"])
def test_a_system_program_has_a_version(binaries: Binaries, name: str) -> None:
    program = binaries.system(name)
    assert program.version[0].isdigit()
    assert program.source == "system package"
