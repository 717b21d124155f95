"""Makes a bare checkout behave like an installed kilonode.

The plugin comes with the package's ``pytest11`` entry point. Where only the checkout is on the path there is
none, so it is registered here, under the same name: ``-p no:kilonode`` turns it off either way. In CI what a
machine lacks is a failure: a nightly job that skips everything must not be green.

Scenarios need nothing but the package; the tests of kilonode itself need its extras. Without those they are
left out, and the header says so, so that ``pytest -k scenario`` works after a plain install.
"""

from __future__ import annotations

import importlib.util
import os

import pytest

from framework import pytest_plugin

EXTRAS_HERE = importlib.util.find_spec("hypothesis") is not None

collect_ignore = [] if EXTRAS_HERE else ["tests/unit", "tests/integration"]


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.is_registered(pytest_plugin):
        pluginmanager.register(pytest_plugin, "kilonode")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") == "true" and config.pluginmanager.is_registered(pytest_plugin):
        config.option.strict_env = True


def pytest_report_header() -> list[str]:
    return [] if EXTRAS_HERE else ["tests/ is left out; to run it: pip install -e '.[unit]'"]
