"""A run as one page for people who were not there: HTML in one file, and Markdown for pasting."""

from framework.page.files import HTML_FILE, MARKDOWN_FILE, write_report
from framework.page.html import html
from framework.page.markdown import markdown, markdown_of_changes, markdown_table
from framework.page.sections import Cells, Report, report, telling_order
from framework.page.timeline import LAYERS, Timeline, timeline

__all__ = [
    "HTML_FILE",
    "LAYERS",
    "MARKDOWN_FILE",
    "Cells",
    "Report",
    "Timeline",
    "html",
    "markdown",
    "markdown_of_changes",
    "markdown_table",
    "report",
    "telling_order",
    "timeline",
    "write_report",
]
