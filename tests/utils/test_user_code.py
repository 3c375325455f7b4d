"""Exceptions of a user's code: description, and Ctrl-C distinguished from a `raise`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.errors import Interrupted
from detr_ft.utils.user_code import describe_error, is_interrupt


class OwnError(BaseException):
    """No `Exception`, as a user may define one."""


class MuteError(Exception):
    """Fails to describe itself."""

    def __str__(self) -> str:
        raise SystemExit(0)


def caught(code: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as info:  # noqa: PT011
        code()
    return info.value


def raised(error: BaseException) -> BaseException:
    def code() -> None:
        raise error

    return caught(code)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        pass


def test_ctrl_c_is_distinguished_from_a_raise_of_the_same_exception() -> None:
    assert is_interrupt(caught(press_ctrl_c))
    assert is_interrupt(raised(Interrupted(signal.SIGTERM)))
    for error in (KeyboardInterrupt(), SystemExit(0), GeneratorExit(), OwnError(), ValueError()):
        assert not is_interrupt(raised(error))


def test_ctrl_c_that_passes_through_code_that_raises_it_again_is_one() -> None:
    def again() -> None:
        try:
            press_ctrl_c()
        except KeyboardInterrupt:
            raise

    assert is_interrupt(caught(again))


def test_a_description_has_type_message_file_and_line() -> None:
    line = 1 + Path(__file__).read_text().splitlines().index("        raise error")
    assert describe_error(raised(SystemExit(0))) == f"SystemExit: 0 (test_user_code.py, line {line})"


def test_the_line_is_that_of_the_code_and_not_of_a_library_below_it() -> None:
    lines = Path(__file__).read_text().splitlines()
    line = 1 + lines.index('    described = describe_error(caught(lambda: json.loads("{")))')
    described = describe_error(caught(lambda: json.loads("{")))
    assert described.endswith(f"(test_user_code.py, line {line})")


def test_messages_that_are_long_or_fail_are_described() -> None:
    described = describe_error(raised(ValueError("x" * 100_000)))
    assert len(described) < 1200
    assert "99,000 more characters" in described
    assert describe_error(raised(MuteError())).startswith("MuteError: (no message, because of SystemExit)")
