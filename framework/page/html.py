"""The report as one HTML file that needs nothing else: no script, no network, pictures inside."""

from __future__ import annotations

import base64

from framework.page.plots import draw_ladder, draw_over_time
from framework.page.sections import Report
from framework.templates import fill_in


def html(report: Report) -> str:
    """The whole page."""
    values = {
        "report": report,
        "ladder": draw_ladder(report.ladder) if report.ladder is not None else None,
        "over_time": [(each, draw_over_time(each)) for each in report.over_time],
    }
    return fill_in("framework.page", "page.html.j2", values, filters={"picture_url": _picture_url})


def _picture_url(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
