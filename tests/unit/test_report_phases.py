"""The phases of a run: plain lines in CI, a live table on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from framework.report import PhaseDisplay, Reporter
from framework.report.phases import duration


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ci_console() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=False, width=80), file


class TestCi:
    def test_a_line_for_each_start_and_end(self, clock: Clock) -> None:
        console, file = ci_console()
        with PhaseDisplay(console, clock=clock) as display:
            reporter: Reporter = display
            reporter.phase_started("cluster", "1.37.2")
            clock.now_s += 4.5
            reporter.phase_ended("cluster", True, "")
            reporter.phase_started("node", "")
            clock.now_s += 125
            reporter.phase_ended("node", False, "kubelet [1.37.2] is not Ready")
        assert file.getvalue().splitlines() == [
            "cluster started: 1.37.2",
            "cluster done after 4.5 s",
            "node started",
            "node FAILED after 2 min 05 s: kubelet [1.37.2] is not Ready",
        ]

    def test_at_most_one_line_of_progress_in_15_s(self, clock: Clock) -> None:
        console, file = ci_console()
        display = PhaseDisplay(console, clock=clock)
        display.phase_started("fleet", "fake nodes", total=100_000)
        for second in range(1, 46):
            clock.now_s = 100.0 + second
            display.phase_advanced("fleet", second * 1000)
        assert file.getvalue().splitlines()[1:] == [
            "fleet 15,000/100,000, 15 s, 1 min 25 s left",
            "fleet 30,000/100,000, 30 s, 1 min 10 s left",
            "fleet 45,000/100,000, 45 s, 55 s left",
        ]

    def test_progress_without_a_total(self, clock: Clock) -> None:
        console, file = ci_console()
        display = PhaseDisplay(console, clock=clock)
        display.phase_started("programming", "")
        clock.now_s += 20
        display.phase_advanced("programming", 3)
        assert file.getvalue().splitlines()[-1] == "programming 3, 20 s"

    def test_a_phase_that_never_started_is_ignored(self, clock: Clock) -> None:
        console, file = ci_console()
        display = PhaseDisplay(console, clock=clock)
        display.phase_advanced("fleet", 1)
        display.phase_ended("fleet", True, "")
        assert file.getvalue() == ""

    def test_long_lines_are_not_folded(self, clock: Clock) -> None:
        console, file = ci_console()
        PhaseDisplay(console, clock=clock).phase_started("binaries", "x" * 200)
        assert len(file.getvalue().splitlines()) == 1


class TestTerminal:
    def test_shows_every_phase_and_leaves_nothing_behind(self, clock: Clock) -> None:
        file = io.StringIO()
        console = Console(file=file, force_terminal=True, width=80, color_system=None)
        with PhaseDisplay(console, clock=clock) as display:
            display.phase_started("cluster", "1.37.2")
            display.phase_ended("cluster", True, "")
            display.phase_started("fleet", "fake nodes", total=100_000)
            clock.now_s += 30
            display.phase_advanced("fleet", 30_000)
            console.print("a line of somebody else")
        text = file.getvalue()
        assert "30,000/100,000" in text
        assert "1 min 10 s left" in text
        assert "a line of somebody else" in text
        assert text.endswith(("\x1b[2K", "\x1b[1A\x1b[2K")) or text.rstrip("\n").endswith("\x1b[2K")

    def test_is_closed_when_the_run_breaks(self, clock: Clock) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, width=80)
        with pytest.raises(RuntimeError), PhaseDisplay(console, clock=clock):
            raise RuntimeError
        with PhaseDisplay(console, clock=clock) as display:
            display.phase_started("node", "")


class TestDuration:
    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0.04, "0.0 s"),
            (9.94, "9.9 s"),
            (59.4, "59 s"),
            (60, "1 min 00 s"),
            (125, "2 min 05 s"),
            (3720, "1 h 02 min"),
        ],
    )
    def test_reads_well(self, seconds: float, text: str) -> None:
        assert duration(seconds) == text
