"""The report's plots, as SVG that needs nothing else: no script, no font, no network.

Each is drawn twice, for wide and for narrow pages, because text in a picture that is scaled down to a phone
can't be read. Colours are told apart by people who see no red and green (Okabe and Ito's), and every plot has
its table below it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from framework.lazy import LazyModule
from framework.page.sections import ClaimMark, Ladder, MemoryOverTime
from framework.page.timeline import BALLAST, KERNEL, OTHER, PAGE_CACHE, KillMark, Timeline
from framework.units import MIB, short_count

if TYPE_CHECKING:
    import matplotlib
    import matplotlib.figure as matplotlib_figure
    import matplotlib.ticker as matplotlib_ticker
    import matplotlib.transforms as matplotlib_transforms
else:
    matplotlib, matplotlib_figure = LazyModule("matplotlib"), LazyModule("matplotlib.figure")
    matplotlib_ticker = LazyModule("matplotlib.ticker")
    matplotlib_transforms = LazyModule("matplotlib.transforms")

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
LAYER_COLOURS: Final = {
    KERNEL: "#4d4d4d",
    "containerd": "#56B4E9",
    "kubelet": "#0072B2",
    "kube-proxy": "#009E73",
    "nft": "#D55E00",
    BALLAST: "#CC79A7",
    OTHER: "#999999",
    PAGE_CACHE: "#e6e6e6",
}
_MARKERS: Final = ("o", "s", "D", "^", "v", "P")
_CLAIM_COLOUR: Final = "#555555"
_GOOD_COLOUR: Final = "#1b7837"
_BAD_COLOUR: Final = "#b00020"
_ARROW_FACTOR: Final = 1.6
"""Arrows that mean "or more" end at this times the value."""
_LEAD_S: Final = 2.0
_LANE_POINTS: Final = 14
"""Height of the lane of the syncs."""
_LABEL_POINTS: Final = 16
"""Width of a line of text that stands upright, with some room."""
_KILLS_APART: Final = 20
"""More would hide what is behind them; their lines are thin."""
_LETTER_POINTS: Final = 7.5
_NUMBER_POINTS: Final = 60
"""Width of a number below the axes, with some room."""
_TEXT: Final = "#1a1a1a"


@dataclass(frozen=True)
class Drawing:
    """One plot for wide and for narrow pages, as the text of SVG files; ``says`` is its description."""

    wide: str
    narrow: str
    says: str


@dataclass(frozen=True)
class _Size:
    """Inches of 72 points; a window of 360 pixels or more shows a point as a pixel at least."""

    width: float
    height: float
    legend_columns: int

    @property
    def across_points(self) -> float:
        """What is about left for the axes beside the numbers and words of the vertical one."""
        return self.width * 72 - 75


_WIDE: Final = _Size(12.2, 5.0, 6)
_NARROW: Final = _Size(4.5, 5.2, 2)


def draw_ladder(ladder: Ladder) -> Drawing:
    """nft's peak over endpoints, both logarithmic; what was stated is hollow, lower bounds point up."""
    return _drawn(
        lambda axes, size: _ladder(axes, size, ladder),
        says="nft's peak memory by number of endpoints, a line for each kube-proxy, stated figures beside",
    )


def draw_over_time(over_time: MemoryOverTime) -> Drawing:
    """A node's memory over time, stacked, with its limit, syncs and OOM kills."""
    return _drawn(
        lambda axes, size: _over_time(axes, size, over_time),
        says="the node's memory over time by process, with its limit, syncs and OOM kills: "
        f"{over_time.label}: {over_time.outcome}",
    )


def _ladder(axes: Any, size: _Size, ladder: Ladder) -> None:
    for index, (version, points) in enumerate(ladder.by_kube_proxy.items()):
        around, place = divmod(index, len(COLOURS))
        colour, marker = COLOURS[place], _MARKERS[(place + around) % len(_MARKERS)]
        x = [point.endpoints for point in points]
        y = [point.nft_bytes / MIB for point in points]
        axes.plot(x, y, color=colour, marker=marker, label=f"kube-proxy {version}", linewidth=1.8)
        lower = [(at, value) for at, value, point in zip(x, y, points, strict=True) if point.bound == "lower"]
        for at, value in lower:
            tip = (at, value * _ARROW_FACTOR)
            axes.update_datalim([tip])  # an arrow whose tip is outside of the axes is not drawn
            axes.annotate("", tip, (at, value), arrowprops={"arrowstyle": "->", "color": colour})
    _claims(axes, ladder.claims)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(matplotlib_ticker.LogLocator(numticks=12))
        axis.set_minor_formatter(matplotlib_ticker.NullFormatter())
    axes.set_xlabel("endpoints of the Service")
    axes.set_ylabel("nft's peak, MiB")
    axes.xaxis.set_major_formatter(lambda value, _: short_count(round(value)) if value >= 1 else "")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.8)
    _legend(axes, size)


def _claims(axes: Any, claims: Sequence[ClaimMark]) -> None:
    """What was stated: a hollow mark for a figure, a bar for a range, an arrow up where no end was stated."""
    label: str | None = "the article states"
    for mark in claims:
        low, high = mark.low_bytes / MIB, (mark.high_bytes or mark.low_bytes) / MIB
        endless = mark.high_bytes is None
        middle = (low * high) ** 0.5
        beyond = _ARROW_FACTOR * high if endless else high
        axes.errorbar(
            [mark.endpoints],
            [middle],
            yerr=None if low == beyond else [[middle - low], [beyond - middle]],
            fmt="o",
            markersize=7,
            markerfacecolor="white",
            markeredgewidth=1.4,
            color=_CLAIM_COLOUR,
            capsize=4,
            lolims=endless,
            zorder=1.5,
            label=label,
        )
        label = None


def _over_time(axes: Any, size: _Size, over_time: MemoryOverTime) -> None:
    moments = over_time.timeline
    axes.stackplot(
        moments.at_s,
        *([amount / MIB for amount in amounts] for amounts in moments.layers.values()),
        colors=[LAYER_COLOURS[name] for name in moments.layers],
        labels=list(moments.layers),
        linewidth=0,
    )
    axes.set_xlim(_begin_s(moments), max(moments.at_s[-1], _LEAD_S))
    axes.xaxis.set_major_locator(matplotlib_ticker.MaxNLocator(int(size.across_points / _NUMBER_POINTS)))
    _limit(axes, moments)
    _syncs(axes, moments)
    _kills(axes, size, moments)
    if moments.programmed_at_s is not None:
        axes.axvline(
            moments.programmed_at_s, color=_GOOD_COLOUR, linestyle=":", linewidth=1.6, label="programmed"
        )
    axes.axvline(0, color="#666666", linewidth=0.8)
    axes.set_xlabel("seconds after the phase began")
    axes.set_ylabel("memory of the node, MiB")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _legend(axes, size)


def _begin_s(moments: Timeline) -> float:
    """Of the time before the phase a tenth of the time after it, and the fullest moment wherever it was."""
    total = [sum(amounts) for amounts in zip(*moments.layers.values(), strict=True)]
    fullest_s = moments.at_s[total.index(max(total))]
    lead_s = max(_LEAD_S, moments.at_s[-1] / 10)
    return max(moments.at_s[0], min(-lead_s, fullest_s - lead_s))


def _limit(axes: Any, moments: Timeline) -> None:
    """A line where it came near; always in words."""
    limit = moments.limit_bytes / MIB
    top = max(sum(amounts) / MIB for amounts in zip(*moments.layers.values(), strict=True))
    near = top > limit / 2
    axes.set_ylim(0, max(limit, top) * 1.15 if near else top * 1.25)
    if near:
        axes.axhline(limit, color=_BAD_COLOUR, linewidth=1.6)
    axes.annotate(
        f"limit {limit:,.0f} MiB" if near else f"limit {limit:,.0f} MiB, above this scale",
        (1, limit if near else axes.get_ylim()[1]),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 3 if near else -4),
        textcoords="offset points",
        ha="right",
        va="bottom" if near else "top",
        color=_BAD_COLOUR,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        zorder=5,
    )


def _syncs(axes: Any, moments: Timeline) -> None:
    """Bars in a lane above the axes."""
    lane = axes.get_xaxis_transform() + matplotlib_transforms.ScaledTranslation(
        0, _LANE_POINTS / 2 / 72, axes.figure.dpi_scale_trans
    )
    begin_s, end_s = axes.get_xlim()
    least_s = (end_s - begin_s) / 400
    labels: dict[bool, str | None] = {False: "sync", True: "sync failed"}
    shown = [sync for sync in moments.syncs if sync.end_s >= begin_s and sync.start_s <= end_s]
    for sync in shown:
        axes.plot(
            [max(sync.start_s, begin_s), min(max(sync.end_s, sync.start_s + least_s), end_s)],
            [1, 1],
            transform=lane,
            clip_on=False,
            color=_BAD_COLOUR if sync.failed else _GOOD_COLOUR,
            linewidth=6,
            solid_capstyle="butt",
            label=labels[sync.failed],
        )
        labels[sync.failed] = None
    if shown:
        axes.annotate(
            "syncs",
            (0, 1),
            xycoords="axes fraction",
            xytext=(-5, _LANE_POINTS / 2),
            textcoords="offset points",
            ha="right",
            va="center",
        )


@dataclass(frozen=True)
class _KillLabel:
    """What was killed at about ``at_s``, and where there is room to say so."""

    text: str
    at_s: float
    label_s: float


def _kills(axes: Any, size: _Size, moments: Timeline) -> None:
    """A line for each, with the victims' names above the lane of the syncs."""
    begin_s, end_s = axes.get_xlim()
    width = 1.0 if len(moments.kills) <= _KILLS_APART else 0.5
    label: str | None = "OOM kill"
    for kill in moments.kills:
        axes.axvline(kill.at_s, color="#000000", linestyle="--", linewidth=width, label=label)
        label = None
    labels = _kill_labels(moments.kills, begin_s, end_s, places=int(size.across_points / _LABEL_POINTS))
    longest = max((len(each.text) for each in labels), default=0)
    axes.figure.set_figheight(size.height + longest * _LETTER_POINTS / 72)
    for each in labels:
        beside = (each.label_s - each.at_s) / (end_s - begin_s) * size.across_points
        axes.annotate(
            each.text,
            (each.at_s, 1),
            xycoords=("data", "axes fraction"),
            xytext=(beside, _LANE_POINTS + 6),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="bottom",
            arrowprops={
                "arrowstyle": "-",
                "linestyle": "--",
                "linewidth": width,
                "relpos": (0.5, 0),
                "shrinkA": 2,
                "shrinkB": 0,
            },
            annotation_clip=False,
            parse_math=False,
        )


def _kill_labels(kills: Sequence[KillMark], begin_s: float, end_s: float, *, places: int) -> list[_KillLabel]:
    """At most ``places``, a place apart, as near to their kills as that allows.

    What one victim met within a place is one label. Where they are too many even so, neighbours are one.
    """
    place_s = (end_s - begin_s) / places
    inside = [kill for kill in kills if begin_s <= kill.at_s <= end_s]
    groups = _grouped(inside, place_s, mixed=False)
    apart_s = place_s
    while len(groups) > places:
        groups = _grouped(inside, apart_s, mixed=True)
        apart_s *= 2
    at_s = [group[0].at_s for group in groups]
    room_s = [begin_s + place_s * (index + 0.5) for index in range(places)]
    left_s, right_s = room_s[0], room_s[-1]
    label_s: list[float] = []
    for wanted_s in at_s:
        label_s.append(max(wanted_s, label_s[-1] + place_s if label_s else left_s))
    for index in reversed(range(len(label_s))):
        limit_s = label_s[index + 1] - place_s if index + 1 < len(label_s) else right_s
        label_s[index] = min(label_s[index], limit_s)
    return [
        _KillLabel(_victims(group), kill_s, words_s)
        for group, kill_s, words_s in zip(groups, at_s, label_s, strict=True)
    ]


def _grouped(kills: Sequence[KillMark], apart_s: float, *, mixed: bool) -> list[list[KillMark]]:
    """Those within ``apart_s`` of the group's first are together, if of the same victim or ``mixed``."""
    groups: list[list[KillMark]] = []
    for kill in kills:
        first = groups[-1][0] if groups else None
        if first and kill.at_s - first.at_s < apart_s and (mixed or kill.victim == first.victim):
            groups[-1].append(kill)
        else:
            groups.append([kill])
    return groups


def _victims(kills: Sequence[KillMark]) -> str:
    names = {kill.victim for kill in kills}
    if len(names) > 1:
        return f"{len(kills)} kills"
    return kills[0].victim if len(kills) == 1 else f"{kills[0].victim} x{len(kills)}"


def _legend(axes: Any, size: _Size) -> None:
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside upper left",
        ncols=size.legend_columns,
        frameon=False,
        borderaxespad=0,
    )


def _drawn(draw: Callable[[Any, _Size], None], *, says: str) -> Drawing:
    return Drawing(wide=_svg(draw, _WIDE), narrow=_svg(draw, _NARROW), says=says)


def _svg(draw: Callable[[Any, _Size], None], size: _Size) -> str:
    text = io.StringIO()
    with _plain_style():
        figure = matplotlib_figure.Figure(figsize=(size.width, size.height), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes, size)
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return _bare(text.getvalue())


@contextmanager
def _plain_style() -> Iterator[None]:
    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "kilonode",
            "font.family": "sans-serif",
            "font.size": 12,
            "text.color": _TEXT,
            "axes.labelcolor": _TEXT,
            "path.simplify": True,
        }
    ):
        yield


_METADATA: Final = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_PROLOGUE: Final = re.compile(r"^.*?(?=<svg )", re.DOTALL)
_OUTLINE: Final = re.compile(r' d="[^"]*"')
_DIGITS: Final = re.compile(r"(\.\d\d)\d+")


def _bare(svg: str) -> str:
    """Without what names other hosts, and without digits that nobody can see.

    An SVG's own namespace is a name, which nobody fetches.
    """
    return _OUTLINE.sub(
        lambda outline: _DIGITS.sub(r"\1", outline.group()), _METADATA.sub("", _PROLOGUE.sub("", svg))
    )
