"""The one way to log: the ``kilonode`` logger, to standard error, one line an event.

Progress and results are not log lines; they belong to ``framework.report``.
"""

from __future__ import annotations

import logging
from typing import Final

LOGGER_NAME: Final = "kilonode"


def get_logger(name: str) -> logging.Logger:
    """A child of the ``kilonode`` logger; ``name`` is the module's ``__name__``."""
    return logging.getLogger(f"{LOGGER_NAME}.{name.removeprefix('framework.')}")
