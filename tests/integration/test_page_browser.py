"""The page in a real browser: whole without a network, and legible on a desk, on a phone and on paper.

Its measurements are recorded ones of November 2026. Their samples were left out of the recordings, so those
of nodes on which processes were killed are made up from what else was recorded of them.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest

from framework.analysis import derive_outcome
from framework.errors import MissingRequirementError, TimeLimitError
from framework.outcome import CgroupSample, Evidence, ProcessTrack, Result, RunResult, Verdict
from framework.page import write_report
from framework.preflight import BROWSER
from framework.report import FORMAT, Session, load_run
from framework.wait import wait_until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

RECORDED = Path(__file__).parents[1] / "unit" / "recorded"
SESSION = Session(
    format=FORMAT,
    run_id="20261127T101500Z-1a2b3c",
    started_utc="2026-11-27T10:15:00+00:00",
    ended_utc=None,
    command="pytest -k 'scenario and ladder' --max-nodes 100k --all-cells",
)
DESK, PHONE = 1280, 390
LEAST_CONTRAST = 4.5
"""WCAG 2.2, level AA."""
LEAST_TEXT_PX = 12
OFFLINE = (
    "--headless=new",
    "--no-sandbox",  # root may have none, and what is opened is our own
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
)
ENDING_TIMEOUT_S = 10.0
MANY = 70


@pytest.fixture(autouse=True)
def machine() -> None:
    """No node is made here: all that is needed is a browser."""


@dataclass(frozen=True)
class Window:
    """A browser with the page in it."""

    driver: Chrome
    page: Path

    def open(self, width: int) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.get(self.page.as_uri())

    def ask(self, expression: str, *arguments: Any) -> Any:
        """What ``expression`` is in the page."""
        return self.driver.execute_script(f"return {expression}", *arguments)

    def of_all(self, selector: str, expression: str) -> Any:
        """What ``expression`` is of each ``element`` that ``selector`` finds."""
        return self.ask(
            f"[...document.querySelectorAll(arguments[0])].map(element => {expression})", selector
        )

    def network(self, event: str) -> list[dict[str, Any]]:
        """Events of the network since they were asked for last."""
        messages = (json.loads(text)["message"] for text in self._log("performance"))
        return [message["params"] for message in messages if message["method"] == f"Network.{event}"]

    def complaints(self) -> list[str]:
        """What the console says since it was asked last."""
        return self._log("browser")

    def _log(self, kind: str) -> list[str]:
        entries = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries]


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """Chromium without a network; nothing of it is left at the end."""
    require_browser()
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    home = tmp_path_factory.mktemp("browser")
    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (*OFFLINE, f"--user-data-dir={home / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    page = write_report(tmp_path_factory.mktemp("run"), measured(), SESSION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "*")  # the driver listens on localhost
        service = ChromeService(shutil.which("chromedriver"), env={**os.environ, "HOME": str(home)})
        try:
            with Chrome(options=options, service=service) as driver:
                driver.get(
                    "about:blank"
                )  # in the place of Chromium's own start page, which loads for a while
                assert living(home)
                yield Window(driver, page)
        finally:
            assert ended(home)


def require_browser() -> None:
    """Raises MissingRequirementError where there is no browser, or nothing that drives it."""
    missing = [package for program, package in BROWSER.items() if shutil.which(program) is None]
    if missing:
        raise MissingRequirementError(
            "reports are opened in chromium, which is not here",
            where="PATH",
            remedy=f"run `kilonode setup --browser` as root, or apt-get install {' '.join(missing)}",
        )
    if importlib.util.find_spec("selenium") is None:
        raise MissingRequirementError(
            "chromium is driven by selenium, which is not installed",
            where="selenium",
            remedy="pip install 'kilonode[integration]'",
        )


def ended(home: Path) -> bool:
    """Whether all that had this home ended by itself; what did not is killed."""
    with suppress(TimeLimitError):
        return wait_until(
            lambda: not living(home) or None,
            what="the browser's end",
            timeout_s=ENDING_TIMEOUT_S,
            interval_s=0.1,
        )
    for pid in living(home):
        os.kill(pid, signal.SIGKILL)
    return False


def living(home: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"HOME={home}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def measured() -> list[RunResult]:
    """Five sizes, two kube-proxies, and nodes that were too small."""
    (smallest,) = load_run(RECORDED / "run-format-1")

    def of(found: Evidence, verdict: Result = "pass", *reasons: str) -> RunResult:
        return msgspec.structs.replace(
            smallest,
            evidence=found,
            outcome=derive_outcome(found),
            verdict=Verdict(result=verdict, reasons=reasons),
            parameters={
                "endpoints": found.endpoints_expected,
                "kube_proxy": found.kube_proxy,
                "memory_bytes": found.cgroup.limit_bytes if found.cgroup else None,
                "oom_policy": "production",
            },
        )

    return [
        smallest,
        of(recorded("endpoints-changed")),
        of(recorded("100k-4gib-of-three")),
        of(recorded("starved"), "unknown", "nobody could look at the node for 31.0 s"),
        of(sampled(recorded("guaranteed-outlives-nft"))),
        of(killing_on(sampled(recorded("kubelet-without-its-score")))),
        of(sampled(recorded("100k-1gib-of-three")), "fail", "expected it to be programmed; nft was killed"),
    ]


def recorded(name: str) -> Evidence:
    return msgspec.json.decode((RECORDED / "evidence" / f"{name}.json").read_bytes(), type=Evidence)


def sampled(found: Evidence) -> Evidence:
    """``found`` with samples as they could have been: full while nft ran, half full else."""
    assert found.cgroup is not None
    limit_bytes = found.cgroup.limit_bytes
    loads = [(each.at_s - each.elapsed_s, each.at_s) for each in found.exits if each.comm == "nft"]
    begin_s = found.workload_applied_at_s - 2
    moments = [begin_s + (found.ended_at_s - begin_s) * n / 1000 for n in range(1001)]
    loading = [any(start_s <= at_s <= end_s for start_s, end_s in loads) for at_s in moments]
    samples = tuple(
        CgroupSample(
            at_s=at_s,
            charged_bytes=limit_bytes if full else limit_bytes // 2,
            anonymous_bytes=limit_bytes * 3 // 4 if full else limit_bytes // 4,
            file_bytes=limit_bytes // 8,
            kernel_bytes=limit_bytes // 8,
        )
        for at_s, full in zip(moments, loading, strict=True)
    )
    nft = ProcessTrack(
        pid=1,
        comm="nft",
        at_s=tuple(moments),
        anonymous_bytes=tuple(limit_bytes // 2 if full else 0 for full in loading),
    )
    return msgspec.structs.replace(
        found, cgroup=msgspec.structs.replace(found.cgroup, samples=samples), tracks=(nft,)
    )


def killing_on(found: Evidence) -> Evidence:
    """``found`` with its kills repeated until they are more than there is room for their names."""
    between_s = (found.ended_at_s - found.workload_applied_at_s) / MANY
    kills = [
        msgspec.structs.replace(
            found.oom_kills[n % len(found.oom_kills)], at_s=found.workload_applied_at_s + n * between_s
        )
        for n in range(MANY)
    ]
    return msgspec.structs.replace(found, oom_kills=tuple(kills))


class TestAlone:
    def test_asks_for_nothing_but_itself(self, window: Window) -> None:
        window.network("requestWillBeSent")
        window.complaints()
        window.open(DESK)
        asked = [event["request"]["url"] for event in window.network("requestWillBeSent")]
        assert asked[0] == window.page.as_uri()
        assert {urlsplit(url).scheme for url in asked[1:]} == {"data"}
        assert window.complaints() == []

    def test_refuses_what_is_smuggled_in(self, window: Window) -> None:
        window.open(DESK)
        window.network("requestWillBeSent")
        window.complaints()
        window.driver.execute_script("""
            const script = document.createElement("script");
            script.textContent = "document.title = 'it ran'";
            const picture = new Image();
            picture.src = "https://example.com/x.png";
            const refused = new Promise(resolve => picture.addEventListener("error", resolve));
            document.body.append(script, picture);
            return refused.then(() => null);
        """)
        assert [event["blockedReason"] for event in window.network("loadingFailed")] == ["csp"]
        assert len([text for text in window.complaints() if "Content Security Policy" in text]) == 2
        assert window.driver.title != "it ran"


class TestOrder:
    def test_verdicts_come_first_and_of_them_what_is_no_pass(self, window: Window) -> None:
        window.open(DESK)
        assert window.driver.title == f"kilonode: {SESSION.run_id}"
        assert window.of_all("section:first-of-type h2", "element.textContent") == ["Verdicts"]
        words = window.of_all("section:first-of-type tbody td:first-child", "element.textContent")
        verdicts = [word for word in words if word in {"fail", "unknown", "pass"}]
        assert verdicts == ["fail", "unknown", *["pass"] * 5]

    def test_a_reason_stands_below_its_verdict(self, window: Window) -> None:
        window.open(DESK)
        rows = window.of_all("section:first-of-type tbody tr", "element.innerText")
        assert rows[0].startswith("fail\t100k x 1.35.0, 1,024 MiB")
        assert rows[1] == "expected it to be programmed; nft was killed"
        assert rows[3] == "nobody could look at the node for 31.0 s"

    def test_every_plot_has_words_and_a_table_with_a_caption_after_it(self, window: Window) -> None:
        window.open(DESK)
        headings = window.of_all("section:has(picture) :is(h2, h3)", "element.textContent")
        assert headings == [
            "nft's memory by endpoints",
            "The node's memory over time",
            "100k x 1.35.0, 1,024 MiB: nft killed, NotReady",
            "20k x 1.35.0, 470 MiB: nft killed, Ready",
            "20k x 1.35.0, 320 MiB: daemon died, NotReady",
            "10 x 1.37.2, 2,048 MiB: programmed, Ready",
        ]
        words = window.of_all("picture img", "element.alt.length")
        captions = window.of_all(
            "picture", "element.nextElementSibling.querySelector('table > caption').textContent.length"
        )
        assert len(words) == len(captions) == len(headings) - 1
        assert min(*words, *captions) > 20


class TestSize:
    def test_pictures_are_others_on_a_phone(self, window: Window) -> None:
        sources = {}
        for width in (DESK, PHONE):
            window.open(width)
            assert all(window.of_all("img", "element.complete && element.naturalWidth > 0"))
            sources[width] = window.of_all("img", "element.currentSrc")
        assert not set(sources[DESK]) & set(sources[PHONE])

    @pytest.mark.parametrize("width", [320, PHONE, 768, DESK])
    def test_only_tables_scroll_sideways(self, window: Window, width: int) -> None:
        window.open(width)
        assert window.ask("document.scrollingElement.scrollWidth <= window.innerWidth")
        assert window.ask("window.innerWidth") == width
        beside = "document.querySelectorAll('table').length"
        assert window.ask(beside) == len(window.of_all(".wide", "element"))
        reach = window.of_all(".wide", "element.getBoundingClientRect().right")
        assert max(reach) <= width

    @pytest.mark.parametrize("width", [360, 940, 941, DESK])
    def test_no_text_is_small_in_pictures_either(self, window: Window, width: int) -> None:
        window.open(width)
        assert min(window.ask(SIZES_OF_TEXT)) >= LEAST_TEXT_PX
        assert min(picture.text_px for picture in pictures(window)) >= LEAST_TEXT_PX

    @pytest.mark.parametrize("width", [PHONE, DESK])
    def test_words_in_pictures_are_whole_and_cover_no_others(self, window: Window, width: int) -> None:
        window.open(width)
        for picture in pictures(window):
            assert [words for words, box in picture.texts if not picture.frame.holds(box)] == []
            assert [
                (words, others)
                for index, (words, box) in enumerate(picture.texts)
                for others, other in picture.texts[:index]
                if box.covers(other)
            ] == []

    def test_a_phones_tables_scroll_in_their_own_boxes(self, window: Window) -> None:
        window.open(PHONE)
        assert window.ask("document.querySelector('#verdicts .wide').scrollWidth") > PHONE
        window.driver.execute_script("document.querySelector('#verdicts .wide').scrollLeft = 1000")
        assert window.ask("document.querySelector('#verdicts .wide').scrollLeft") > 0
        assert window.ask("document.scrollingElement.scrollLeft") == 0


SIZES_OF_TEXT = """(() => {
    const sizes = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode())
        if (walker.currentNode.textContent.trim())
            sizes.push(parseFloat(getComputedStyle(walker.currentNode.parentElement).fontSize));
    return sizes;
})()"""
BOX = """(() => {
    const box = element.getBoundingClientRect();
    return [element.textContent, [box.left, box.top, box.right, box.bottom]];
})()"""
FONT_SHARE = "parseFloat(getComputedStyle(element).fontSize) / element.ownerSVGElement.viewBox.baseVal.width"


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def holds(self, other: Box) -> bool:
        return (
            self.left <= other.left
            and self.top <= other.top
            and self.right >= other.right
            and self.bottom >= other.bottom
        )

    def covers(self, other: Box) -> bool:
        """Whether they overlap by more than what letters leave free of their boxes."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return across > 1 and down > 1


@dataclass(frozen=True)
class Picture:
    """A plot by itself; ``text_px`` is the size of its smallest text where the page shows it."""

    frame: Box
    texts: tuple[tuple[str, Box], ...]
    text_px: float


def pictures(window: Window) -> list[Picture]:
    """Those that the page shows at this width. The window is another then."""
    found = []
    for source, shown_px in window.of_all("img", "[element.currentSrc, element.clientWidth]"):
        window.driver.get(source)
        ((_, frame),) = window.of_all("svg", BOX)
        texts = tuple((words, Box(*box)) for words, box in window.of_all("text", BOX))
        found.append(Picture(Box(*frame), texts, min(window.of_all("text", FONT_SHARE)) * shown_px))
    return found


class TestReaders:
    def test_verdicts_stand_out_from_what_is_behind_them(self, window: Window) -> None:
        window.open(DESK)
        words = ".counts li, #verdicts tr:is(.fail, .unknown, .pass) td:first-child, .faint, caption, td"
        found = window.of_all(words, COLOURS)
        assert len({front for front, _ in found}) >= 5
        assert min(contrast(front, back) for front, back in found) >= LEAST_CONTRAST

    def test_keys_reach_and_scroll_every_table(self, window: Window) -> None:
        from selenium.webdriver import ActionChains, Keys

        def press(key: str) -> None:
            ActionChains(window.driver).send_keys(key).perform()

        window.open(PHONE)
        boxes = window.of_all(".wide", "[element.role, element.tabIndex, element.ariaLabel]")
        assert all(role == "region" and index == 0 and label for role, index, label in boxes)
        reached = []
        for _ in boxes:
            press(Keys.TAB)
            reached.append(
                window.ask("[...document.querySelectorAll('.wide')].indexOf(document.activeElement)")
            )
            if reached == [0]:
                press(Keys.ARROW_RIGHT)
                wait_until(
                    lambda: window.ask("document.activeElement.scrollLeft > 0") or None,
                    what="scrolling",
                    timeout_s=5,
                    interval_s=0.05,
                )
        assert reached == list(range(len(boxes)))

    def test_tables_are_tables_for_who_hears_them_also_where_they_are_stacked(self, window: Window) -> None:
        window.open(PHONE)
        tree = window.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = [node["role"]["value"] for node in tree if not node["ignored"]]
        assert roles.count("table") == len(window.of_all("table", "element"))

    def test_prints(self, window: Window) -> None:
        window.open(DESK)
        printed = base64.b64decode(window.driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
        assert printed.startswith(b"%PDF-")
        assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 2


COLOURS = """(() => {
    let behind = element;
    while (behind.parentElement && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)")
        behind = behind.parentElement;
    return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
})()"""


def contrast(front: str, back: str) -> float:
    """That of two colours as a browser writes them, as WCAG defines it."""
    one, other = sorted(map(luminance, (front, back)))
    return (other + 0.05) / (one + 0.05)


def luminance(colour: str) -> float:
    found = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert found, colour
    parts = [int(part) / 255 for part in found.groups()]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
