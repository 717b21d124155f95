"""Modules that take long to import, loaded at first use.

Every pytest start in an environment that has kilonode loads its plugin, and most of them measure nothing;
aiohttp and kubernetes would cost each of them more than half a second.
"""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """Stands for a module of which nothing is loaded before its first attribute is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
