"""What this machine lacks is told at once, whole, with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from framework.errors import MissingRequirementError
from framework.preflight import (
    PACKAGES,
    missing_packages,
    require_iptables,
    require_programs,
)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, with everything that is needed."""
    for program in PACKAGES:
        (tmp_path / program).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_nothing_is_missing(programs: Path) -> None:
    assert missing_packages() == ()


def test_the_profiler_is_for_those_who_ask(programs: Path) -> None:
    assert missing_packages(profiler=True) == ("valgrind",)
    assert missing_packages() == ()


def test_so_is_the_browser_with_what_drives_it(programs: Path) -> None:
    assert missing_packages(browser=True) == ("chromium", "chromium-driver")
    assert missing_packages(profiler=True, browser=True) == ("valgrind", "chromium", "chromium-driver")
    (programs / "chromium").touch(mode=0o755)
    assert missing_packages(browser=True) == ("chromium-driver",)


def test_names_of_protocols_are_a_package_too(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> int:
        raise OSError(f"protocol not found: {name}")

    monkeypatch.setattr("socket.getprotobyname", unknown)
    assert missing_packages() == ("netbase",)


class TestIptables:
    @pytest.mark.parametrize("exit_code", [0, 4])
    def test_a_kernel_that_refuses(self, programs: Path, exit_code: int) -> None:
        unshare = programs / "unshare"
        unshare.write_text(
            f"#!/bin/sh\necho 'Extension statistic revision 0 not supported' >&2\nexit {exit_code}\n"
        )
        unshare.chmod(0o755)
        if exit_code == 0:
            require_iptables()
            return
        with pytest.raises(MissingRequirementError, match=r"refuses rules .*: Extension statistic") as caught:
            require_iptables()
        assert "nft_compat" in caught.value.remedy


def test_every_missing_program_is_named_with_its_package(programs: Path) -> None:
    (programs / "nft").unlink()
    (programs / "ip").chmod(0o644)
    with pytest.raises(MissingRequirementError) as caught:
        require_programs()
    assert caught.value.what == "programs are missing: nft, ip"
    assert caught.value.remedy.startswith("apt-get install nftables iproute2;")
