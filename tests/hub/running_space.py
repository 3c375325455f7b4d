"""A Space, started from its own folder in an environment of its own that has no detr-ft."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hub.clean_environment import clean_environment


@contextmanager
def running(space: Path, environment: Path) -> Iterator[str]:
    """Its address. The environment is made in a folder, of what the Space requires; the Hub is out of reach."""
    python = clean_environment((space / "requirements.txt").read_text(), environment)
    imported = subprocess.run([str(python), "-c", "import detr_ft"], cwd=environment, capture_output=True, text=True)
    assert "No module named 'detr_ft'" in imported.stderr
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    settings = {
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "HF_HUB_OFFLINE": "1",
        "PATH": "/usr/bin:/bin",
    }
    log = environment / "log"
    with (
        log.open("w") as output,
        subprocess.Popen([python, "space.py"], cwd=space, env=settings, stderr=output) as process,
    ):
        try:
            while "the demo is at" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
