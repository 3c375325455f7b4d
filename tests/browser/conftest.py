"""A real headless Chromium, and the demo as a process of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.demo_server import Server, demo_servers

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Visit:
    """A page of the browser, its requests to other hosts, and its script errors."""

    page: Any
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium through Playwright; the tests are skipped without one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright")
    executable = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if executable is None:
        pytest.skip(f"browser tests need a Chromium: none of {', '.join(CHROMIUMS)} is on the PATH")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Open an address in a new context: `visit(url, width=, height=, color_scheme=)`."""
    contexts = []

    def open_page(url: str, width: int = 1280, height: int = 900, color_scheme: str = "light") -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=color_scheme)
        contexts.append(context)
        visited = Visit(context.new_page())
        visited.page.on("request", lambda request: _record_request(visited, request.url))
        visited.page.on("pageerror", lambda error: visited.errors.append(str(error)))
        visited.page.goto(url)
        return visited

    yield open_page
    for context in contexts:
        context.close()


def _record_request(visited: Visit, url: str) -> None:
    if not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")):
        visited.outside.append(url)


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., Server]]:
    """Start `python ARGUMENTS --port FREE` and wait until it prints its address on stderr."""
    with demo_servers() as start:
        yield start
