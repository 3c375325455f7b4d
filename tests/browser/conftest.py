"""A real headless Chromium, and the demo as a process of its own."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

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
# They end the wait for a demo that hangs; on a busy machine a start takes a minute.
START_SECONDS, END_SECONDS = 180, 60


@dataclass
class Server:
    """A running demo: its address and its process."""

    url: str
    process: subprocess.Popen[str]


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
def serve() -> Iterator[Callable[[list[str]], Server]]:
    """Start `python ARGUMENTS --port FREE` and wait until it prints its address on stderr."""
    pytest.importorskip("gradio", reason="the demo needs gradio: pip install detr-ft[demo]")
    running: list[subprocess.Popen[str]] = []

    def start(arguments: list[str]) -> Server:
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, *arguments, "--port", str(_free_port())]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return Server(_address(process), process)

    yield start
    for process in running:
        process.terminate()
    for process in running:
        process.communicate(timeout=END_SECONDS)


def _address(process: subprocess.Popen[str]) -> str:
    """The address that the demo prints on stderr."""
    lines: list[str] = []
    deadline = time.monotonic() + START_SECONDS
    assert process.stderr is not None
    while time.monotonic() < deadline and process.poll() is None:
        ready, _, _ = select.select([process.stderr], [], [], 0.1)
        if ready:
            lines.append(process.stderr.readline())
            if "http://127.0.0.1:" in lines[-1]:
                return next(word for word in lines[-1].split() if word.startswith("http://"))
    pytest.fail(f"the demo did not start: {''.join(lines)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
