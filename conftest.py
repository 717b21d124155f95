"""Makes a bare checkout behave like an installed kilonode.

The plugin comes with the package's ``pytest11`` entry point. Where only the checkout is on the path there is
none, so it is registered here, under the same name: ``-p no:kilonode`` turns it off either way. In CI what a
machine lacks is a failure: a nightly job that skips everything must not be green.
"""

from __future__ import annotations

import os

import pytest

from framework import pytest_plugin


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.is_registered(pytest_plugin):
        pluginmanager.register(pytest_plugin, "kilonode")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") == "true" and config.pluginmanager.is_registered(pytest_plugin):
        config.option.strict_env = True
