"""The one exception for a mistake that the user can mend."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(Exception):
    """The user's input is wrong: a message that names the place and says what to do, without a traceback.

    Takes one problem or several; several are reported together, one a line. The command ends with exit status 2.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class Interrupted(KeyboardInterrupt):
    """A signal ended the work, which is saved as far as it went. The command ends with 128 and the signal's number."""

    def __init__(self, signal: int) -> None:
        self.signal = signal
        super().__init__(signal)
