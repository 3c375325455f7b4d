"""Exceptions for invalid input and for signals."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(Exception):
    """Invalid input: one problem or several, each with its place and its remedy.

    The command prints the problems, one a line, without a traceback, and ends with exit status 2.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class CriterionError(InputError, ValueError):
    """A prediction, a target or a term that cannot be scored; names it and the likely cause."""


class TargetError(CriterionError):
    """A target that cannot be scored: an invalid type or shape, a label out of range, or no cxcywh."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the run after its checkpoint was saved. The command ends with 128 plus `signal`."""

    def __init__(self, signal: int) -> None:
        self.signal = signal
        super().__init__(signal)
