"""The go.mod of the small build module, derived from recorded upstream ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.binaries.gomod import BUILD_MODULE, GoMod, Replace, derive, go_version, parse
from framework.errors import KilonodeError

KUBERNETES = """\
// This is a generated file. Do not edit directly.

module k8s.io/kubernetes

go 1.26.0

godebug default=go1.26

require (
\tgithub.com/coreos/go-oidc v2.5.0+incompatible
\tgithub.com/vishvananda/netlink v1.3.1
\tk8s.io/api v0.0.0
\tk8s.io/klog/v2 v2.140.0
\tk8s.io/kube-proxy v0.0.0
\tsigs.k8s.io/knftables v0.0.22
)

require (
\tcel.dev/expr v0.25.1 // indirect
)

replace (
\tk8s.io/api => ./staging/src/k8s.io/api
\tk8s.io/kube-proxy => ./staging/src/k8s.io/kube-proxy
\tk8s.io/sample-controller => ./staging/src/k8s.io/sample-controller
)
"""

ETCD = """\
module go.etcd.io/etcd/server/v3

go 1.26

toolchain go1.26.5

require (
\tgo.etcd.io/bbolt v1.5.0
\tgo.etcd.io/etcd/api/v3 v3.7.0
)

replace (
\tgo.etcd.io/etcd/api/v3 => ../api
)

replace example.com/fork v1.0.0 => example.com/other v1.2.3

retract v3.6.9 // published by mistake
"""


def test_a_kubernetes_module_gets_its_siblings_at_their_published_version() -> None:
    derived = derive(parse(KUBERNETES), version="v1.35.0", sibling_version="v0.35.0")
    assert derived == (
        f"module {BUILD_MODULE}\n"
        "go 1.26.0\n"
        "godebug default=go1.26\n"
        "require k8s.io/kubernetes v1.35.0\n"
        "require github.com/coreos/go-oidc v2.5.0+incompatible\n"
        "require github.com/vishvananda/netlink v1.3.1\n"
        "require k8s.io/api v0.35.0\n"
        "require k8s.io/klog/v2 v2.140.0\n"
        "require k8s.io/kube-proxy v0.35.0\n"
        "require sigs.k8s.io/knftables v0.0.22\n"
        "require cel.dev/expr v0.25.1\n"
        "replace k8s.io/api => k8s.io/api v0.35.0\n"
        "replace k8s.io/kube-proxy => k8s.io/kube-proxy v0.35.0\n"
        "replace k8s.io/sample-controller => k8s.io/sample-controller v0.35.0\n"
    )


def test_a_replacement_by_another_module_is_kept() -> None:
    derived = derive(parse(ETCD), version="v3.7.0", sibling_version="v3.7.0")
    assert "replace go.etcd.io/etcd/api/v3 => go.etcd.io/etcd/api/v3 v3.7.0\n" in derived
    assert "replace example.com/fork v1.0.0 => example.com/other v1.2.3\n" in derived
    assert "toolchain" not in derived


def test_folders_without_a_published_version_are_refused() -> None:
    with pytest.raises(KilonodeError, match="sibling_version"):
        derive(parse(ETCD), version="v3.7.0", sibling_version=None)


def test_a_module_without_folders_needs_no_sibling_version() -> None:
    upstream = GoMod("sigs.k8s.io/kwok", "1.26.0", (), (("k8s.io/api", "v0.36.1"),), ())
    assert "require k8s.io/api v0.36.1\n" in derive(upstream, version="v0.8.0", sibling_version=None)


@pytest.mark.parametrize("text", ["", "module example.com/a\n", "go 1.26\n"])
def test_what_is_no_whole_go_mod_is_refused(text: str) -> None:
    with pytest.raises(KilonodeError, match=r"a go\.mod has no"):
        parse(text)


words = st.text("abcdefghijklmnopqrstuvwxyz0123456789./-", min_size=1, max_size=20).filter(
    lambda text: "//" not in text
)
pairs = st.lists(st.tuples(words, words), max_size=5).map(tuple)


@given(words, pairs, pairs, st.booleans())
def test_parsing_gives_back_what_was_written(
    module: str, requires: tuple[tuple[str, str], ...], replaces: tuple[tuple[str, str], ...], block: bool
) -> None:
    def directives(verb: str, lines: list[str]) -> str:
        if block:
            return f"{verb} (\n" + "".join(f"\t{line} // said\n" for line in lines) + ")\n"
        return "".join(f"{verb} {line}\n" for line in lines)

    text = (
        f"module {module}\n\ngo 1.26.0\n"
        + directives("require", [f"{path} {version}" for path, version in requires])
        + directives("replace", [f"{path} => {target}" for path, target in replaces])
    )
    assert parse(text) == GoMod(
        module, "1.26.0", (), requires, tuple(Replace(path, target) for path, target in replaces)
    )


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go1.26.8", (1, 26, 8)),
        ("1.26", (1, 26, 0)),
        ("go1.27rc1", (1, 27, 0)),
        ("go1.26.8 X:nocoverageredesign", (1, 26, 8)),
    ],
)
def test_go_versions_are_read(text: str, version: tuple[int, int, int]) -> None:
    assert go_version(text) == version


def test_what_is_no_go_version_is_refused() -> None:
    with pytest.raises(KilonodeError, match="devel"):
        go_version("devel +abc")
