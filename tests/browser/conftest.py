"""Debian's chromium without a window, driven by Debian's driver: the two fit each other."""

import shutil
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

FLAGS = (
    "--headless=new",
    # Root has no sandbox, and a CI machine no GPU.
    "--no-sandbox",
    "--disable-gpu",
    # Nothing that it would do by itself.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for all tests; each opens a page of its own server."""
    options = ChromeOptions()
    options.binary_location = _program("chromium")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options, ChromeService(_program("chromedriver"))) as driver:
        yield driver


def _program(name: str) -> str:
    # Without a path, selenium would look for one to download.
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"{name} is missing: `make test-browser` installs it")
    return path
