"""The demo as a process of its own, for tests that send it requests."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# They end the wait for a demo that hangs; on a busy machine a start takes a minute.
START_SECONDS, END_SECONDS = 180, 60


@dataclass
class Server:
    """A running demo: its address and its process."""

    url: str
    process: subprocess.Popen[str]


@contextmanager
def demo_servers() -> Iterator[Callable[..., Server]]:
    """Start `python ARGUMENTS --port FREE` and wait until it prints its address on stderr."""
    pytest.importorskip("gradio", reason="the demo needs gradio: pip install detr-ft[demo]")
    running: list[subprocess.Popen[str]] = []

    def start(arguments: list[str], settings: Mapping[str, str] = {}) -> Server:
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **settings}
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
