"""The report in a run folder: the page, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from framework.claims import load_claims
from framework.errors import BadInputError
from framework.outcome import RunResult
from framework.page.html import html
from framework.page.markdown import markdown
from framework.page.sections import report
from framework.report import Session
from framework.versioned_file import replace_file

HTML_FILE: Final = "report.html"
MARKDOWN_FILE: Final = "report.md"


def write_report(
    folder: Path, results: Sequence[RunResult], session: Session | None, *, output: Path | None = None
) -> Path:
    """Write the page to ``output``, or into ``folder`` with its Markdown beside it; gives the page's path.

    Raises BadInputError where it can't be written.
    """
    page = output or folder / HTML_FILE
    if page.is_dir():
        raise BadInputError(
            "the report can't be written: Is a directory", where=str(page), remedy="give a file in it"
        )
    if not page.parent.is_dir():
        raise BadInputError(
            f"the report can't be written: there is no folder {page.parent}",
            where=str(page),
            remedy="give another --output",
        )
    shown = report(results, session, load_claims())
    try:
        replace_file(page, html(shown).encode())
        if output is None:
            replace_file(folder / MARKDOWN_FILE, markdown(shown).encode())
    except OSError as error:
        raise BadInputError(
            f"the report can't be written: {error.strerror}", where=str(page), remedy="give another --output"
        ) from error
    return page
