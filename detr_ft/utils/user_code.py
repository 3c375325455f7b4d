"""Exceptions of a user's code, `SystemExit` and others that are no `Exception` included."""

from __future__ import annotations

import dis
import traceback
from pathlib import Path

from detr_ft.errors import Interrupted
from detr_ft.utils.code_places import frame_of_user

_RAISE = dis.opmap["RAISE_VARARGS"]
_MAX_MESSAGE_CHARS = 1000


def is_interrupt(error: BaseException) -> bool:
    """Return whether a signal raised an exception, as Ctrl-C does, and no `raise` of a user's code.

    Python's handler of SIGINT raises KeyboardInterrupt without a `raise` statement in the innermost frame.
    """
    if isinstance(error, Interrupted):
        return True
    if not isinstance(error, KeyboardInterrupt):
        return False
    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    return entry is None or entry.tb_frame.f_code.co_code[entry.tb_lasti] != _RAISE


def raise_if_interrupt(error: BaseException) -> None:
    """Raise an exception again if a signal raised it."""
    if is_interrupt(error):
        raise error


def describe_error(error: BaseException) -> str:
    """Return type and message of an exception, and the file and line of the code that raised it.

    Below the code of a user there may be frames of a library, which do not show its mistake.
    """
    last = frame_of_user(traceback.walk_tb(error.__traceback__))
    # The message of a SyntaxError has file and line.
    place = (
        ""
        if last is None or isinstance(error, SyntaxError)
        else f" ({Path(last[0].f_code.co_filename).name}, line {last[1]})"
    )
    return f"{type(error).__name__}: {_message(error)}{place}"


def _message(error: BaseException) -> str:
    """Return the message of an exception, cut if it is long."""
    try:
        text = str(error)
    except BaseException as second:  # noqa: BLE001 - the class may be a user's own
        raise_if_interrupt(second)
        return f"(no message, because of {type(second).__name__})"
    more = len(text) - _MAX_MESSAGE_CHARS
    return text if more <= 0 else f"{text[:_MAX_MESSAGE_CHARS]} ... ({more:,} more characters)"
