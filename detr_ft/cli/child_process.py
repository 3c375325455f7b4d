"""A child process for code of a user, which may end, crash, block or flood the process that runs it.

The child reads a request and writes a result, both JSON in files of a temporary folder. A child without a complete result
has failed, whatever its exit status.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from detr_ft.utils.code_places import is_library

_REQUEST, _RESULT, _STACK = "request.json", "result.json", "stack.txt"
_TAIL_BYTES, _TAIL_LINES = 4096, 20
_START_SECONDS = 120  # for the imports of a child on a slow disk, which its own limit does not include
_READ_SECONDS = 2  # for the rest of the output; a process that the child has started may keep it open
_PARENT_SECONDS = 1  # between two checks that the parent is running
_FRAME = re.compile(r'File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)')
_PACKAGE = str(Path(__file__).parents[1])


@dataclass(frozen=True)
class ChildOutcome:
    """The result of a child process, None if it ended before that was complete.

    `failure` is how it ended. `timed_out` is True if it was ended at its limit. `output` is the end of what the process printed.
    """

    result: Any
    failure: str
    timed_out: bool
    output: str


def run_child(module: str, request: object, seconds: float | None = None) -> ChildOutcome:
    """Run `python -m module`, which calls `serve`, and return what it leaves.

    It is ended `seconds` after it has begun to work, with the line that it was at. Ctrl-C ends it too.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / _REQUEST).write_text(json.dumps({"work": request, "seconds": seconds}), encoding="utf-8")
        process = subprocess.Popen(
            # -P and this path: the modules that it imports are those of this process. -u: no output is lost.
            [sys.executable, "-P", "-u", "-m", module, name],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        output = _Tail(process.stdout)
        try:
            status: int | None = process.wait(None if seconds is None else seconds + _START_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            process.kill()
            process.wait()
        result = _read_result(folder / _RESULT) if status == 0 else None
        stack = _read_stack(folder / _STACK)
        timed_out = result is None and (status is None or stack.startswith("Timeout"))
        failure = f"did not end within {seconds:g} seconds" if timed_out else _failure(status)
        return ChildOutcome(result, failure + _user_frame(stack), timed_out, output.text())


def serve(work: Callable[[Any], object]) -> None:
    """Answer the request of `run_child` with the result of `work`, which is JSON, and end the process."""
    folder = Path(sys.argv[1])
    request = json.loads((folder / _REQUEST).read_text(encoding="utf-8"))
    threading.Thread(target=_end_with_parent, args=[os.getppid()], daemon=True).start()
    with (folder / _STACK).open("w") as stack:
        faulthandler.enable(stack)
        if request["seconds"] is not None:
            faulthandler.dump_traceback_later(request["seconds"], exit=True, file=stack)
        result = json.dumps({"result": work(request["work"])})
        sys.stdout.flush()
        part = folder / f"{_RESULT}.part"
        part.write_text(result, encoding="utf-8")
        part.replace(folder / _RESULT)
        os._exit(0)  # without threads and exit handlers of a user's code


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


def _read_result(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))["result"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _read_stack(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _failure(status: int | None) -> str:
    """Return how a child without a result ended."""
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        memory = " (the system sends it to a process that uses too much memory)" if name == "SIGKILL" else ""
        return f"was ended by {name}{memory}"
    return f"ended with status {status} before it was complete"


def _user_frame(stack: str) -> str:
    """Return the innermost line of a user's code in a stack of faulthandler, empty if there is none."""
    for frame in _FRAME.finditer(stack):
        if not is_library(frame["file"]) and not frame["file"].startswith(_PACKAGE):
            return f", at {Path(frame['file']).name}, line {frame['line']}, in {frame['function']}"
    return ""


class _Tail:
    """The end of a stream, read by a thread, so that the writer never blocks."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._tail, self._bytes = stream, b"", 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Return the last lines of the stream, with the number of bytes before them."""
        self._thread.join(_READ_SECONDS)
        tail = b"".join(self._tail.splitlines(keepends=True)[-_TAIL_LINES:])
        before = self._bytes - len(tail)
        start = f"[{before:,} bytes of output are left out]\n" if before else ""
        return f"{start}{tail.decode(errors='replace')}".rstrip()

    def _read(self) -> None:
        while chunk := os.read(self._stream.fileno(), 1 << 16):
            self._bytes += len(chunk)
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
        self._stream.close()
