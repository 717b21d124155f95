"""The pin file is consistent, and requests and version skew are checked as written."""

from __future__ import annotations

import platform

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.binaries import Request, SkewError, check_skew, load_pins
from framework.binaries.pins import Pins, architecture, fill
from framework.errors import BadInputError, MissingRequirementError

PINS = load_pins()


def test_every_pinned_kube_proxy_goes_with_the_pinned_control_plane() -> None:
    server = PINS.request("kube-apiserver").version
    for version in PINS.pin("kube-proxy").versions:
        check_skew(kube_apiserver=server, kube_proxy=version)


def test_the_control_plane_has_one_version() -> None:
    names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
    assert len({PINS.request(name).version for name in names}) == 1


def test_the_kubernetes_pins_keep_both_rule_layouts_by_default() -> None:
    minors = {int(version.split(".")[1]) for version in PINS.pin("kube-proxy").default_versions}
    assert min(minors) <= 35
    assert max(minors) >= 36


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_every_template_can_be_filled(arch: str) -> None:
    for request in PINS.defaults():
        supplier = PINS.supplier_of(request.name)
        download, go = supplier.download, supplier.go
        templates = [
            download.file,
            download.checksum_file,
            download.member or "",
            go.package,
            go.sibling_version or "",
            supplier.version_output,
            *go.variables.values(),
        ]
        for template in templates:
            assert "{" not in fill(template, request, arch)


def test_official_addresses_are_those_of_the_publishers() -> None:
    request = Request("kube-proxy", "1.35.0")
    download = PINS.supplier_of("kube-proxy").download
    assert f"{download.base_url}/{fill(download.file, request, 'arm64')}" == (
        "https://dl.k8s.io/release/v1.35.0/bin/linux/arm64/kube-proxy"
    )


def test_a_request_without_version_takes_the_one_pin() -> None:
    assert PINS.request("etcd") == Request("etcd", PINS.pin("etcd").versions[0])


def test_a_request_drops_the_leading_v() -> None:
    assert PINS.request("kube-proxy", "v1.33.4") == Request("kube-proxy", "1.33.4")


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("kube-proxy", None, "say which"),
        ("kube-proxy", "1.35", "no exact version"),
        ("kube-proxy", "latest", "no exact version"),
        ("kube-proxi", "1.35.0", "kube-proxy"),
    ],
)
def test_an_inexact_request_is_refused(name: str, version: str | None, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        PINS.request(name, version)


def test_a_pin_that_is_no_exact_version_is_refused() -> None:
    raw = msgspec.to_builtins(PINS)
    raw["binaries"]["etcd"]["versions"] = ["3.7"]
    with pytest.raises((BadInputError, msgspec.ValidationError), match="exact version"):
        msgspec.convert(raw, type=Pins)


def test_a_pin_of_an_unknown_supplier_is_refused() -> None:
    raw = msgspec.to_builtins(PINS)
    raw["binaries"]["etcd"]["supplier"] = "nobody"
    with pytest.raises((BadInputError, msgspec.ValidationError), match="nobody"):
        msgspec.convert(raw, type=Pins)


@pytest.mark.parametrize(
    ("server", "proxy"), [("1.37.2", "1.37.9"), ("1.37.2", "1.34.0"), ("1.37.0", "1.36.1")]
)
def test_supported_skew_is_accepted(server: str, proxy: str) -> None:
    check_skew(kube_apiserver=server, kube_proxy=proxy)


@pytest.mark.parametrize(
    ("server", "proxy", "said"),
    [
        ("1.37.2", "1.38.0", "newer than kube-apiserver"),
        ("1.37.2", "1.33.9", "more than 3 minor"),
        ("2.0.0", "1.37.2", "more than 3 minor"),
    ],
)
def test_unsupported_skew_is_refused(server: str, proxy: str, said: str) -> None:
    with pytest.raises(SkewError, match=said):
        check_skew(kube_apiserver=server, kube_proxy=proxy)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_skew_depends_on_the_minors_only(server: int, proxy: int, patch: int) -> None:
    def accepted() -> bool:
        try:
            check_skew(kube_apiserver=f"1.{server}.{patch}", kube_proxy=f"1.{proxy}.0")
        except SkewError:
            return False
        return True

    assert accepted() == (0 <= server - proxy <= 3)


def test_another_platform_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(MissingRequirementError, match="riscv64"):
        architecture()
