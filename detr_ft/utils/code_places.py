"""The place in the user's code that an exception or a stack shows, without the libraries below it."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterable
from types import FrameType, TracebackType

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})


def frame_of_user(frames: Iterable[tuple[FrameType, int]]) -> tuple[FrameType, int] | None:
    """Return the innermost frame that is no library's, with its line; the outermost if all are.

    `frames` begin with the outermost.
    """
    chosen: tuple[FrameType, int] | None = None
    for frame, line in frames:
        if chosen is None or not is_library(frame.f_code.co_filename):
            chosen = frame, line
    return chosen


def place_in_traceback(trace: TracebackType | None) -> str:
    """Return "FILE, line N" of the user's code in a traceback; empty without one."""
    return _place(frame_of_user(traceback.walk_tb(trace)))


def place_in_stack(innermost: FrameType) -> str:
    """Return "FILE, line N" of the user's code that a thread is running, given its innermost frame."""
    return _place(frame_of_user(reversed(list(traceback.walk_stack(innermost)))))


def files_in_stack(innermost: FrameType) -> set[str]:
    """Return the files of the functions that a thread is running, given its innermost frame."""
    return {frame.f_code.co_filename for frame, _ in traceback.walk_stack(innermost)}


def _place(at: tuple[FrameType, int] | None) -> str:
    return "" if at is None else f"{at[0].f_code.co_filename}, line {at[1]}"


def is_library(file: str) -> bool:
    """Return whether a file of code belongs to Python or to an installed library."""
    # `exit()` and `quit()` are code of the standard library, and so are frozen modules.
    return "site-packages" in file or file.startswith((*_LIBRARIES, "<frozen"))
