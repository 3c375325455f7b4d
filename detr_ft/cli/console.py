"""Terminal output: messages on stderr, results on stdout, one message and status for an error."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn, ParamSpec, TypeVar

from rich.console import Console
from rich.text import Text

from detr_ft.errors import InputError, Interrupted
from detr_ft.utils import components
from detr_ft.utils.distributed import processes, rank
from detr_ft.utils.environment_faults import environment_fault
from detr_ft.utils.formatting import shorten, visible
from detr_ft.utils.progress import shown_on
from detr_ft.utils.user_code import describe_error, is_interrupt

P = ParamSpec("P")
R = TypeVar("R")

INVALID_INPUT, FAILURE, INTERRUPTED = 2, 1, 130
_MAX_PROBLEMS, _MAX_LINE_CHARS = 100, 2000  # of a report
# Read by the libraries when they are imported, which is after the arguments have been checked.
_QUIET_LIBRARIES = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers follows it too
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}

_UNSAFE_ADVICE = re.compile(
    r"weights_only|safe_globals|trust_remote_code|allow_pickle|can still be loaded|trusted source", re.IGNORECASE
)

console = Console(stderr=True, highlight=False, quiet=rank() > 0)  # of the main process
_errors = Console(stderr=True, highlight=False)  # of every process


class CommandExit(SystemExit):
    """The exit status of a command, unlike a SystemExit of a user's code."""


class _ConsoleHandler(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._announced: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = without_unsafe_advice(self.format(record))
        if record.name == components.__name__:  # a command that builds a recipe twice announces its code once
            if text in self._announced:
                return
            self._announced.add(text)
        style = "yellow" if record.levelno >= logging.WARNING else "none"
        target = _errors if record.levelno >= logging.ERROR else console
        target.print(_plain(text), style=style, soft_wrap=True)


def without_unsafe_advice(text: str) -> str:
    """Return the message of a library without sentences that advise to run the code in a file."""
    lines = []
    for line in text.split("\n"):
        sentences = re.split(r"(?<=[.!?])\s+", line)
        safe = [sentence for sentence in sentences if not _UNSAFE_ADVICE.search(sentence)]
        lines += [line] if len(safe) == len(sentences) else [" ".join(safe)] if safe else []
    return "\n".join(lines) or "the file has objects that are not loaded"


def print_message(text: str) -> None:
    """Print a message on stderr."""
    console.print(_plain(text), soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    console.print(_plain(text), style="bold yellow", soft_wrap=True)


def print_result(text: str) -> None:
    """Print a result on stdout; on the main process only."""
    if rank() == 0:
        print(visible(text))


def _plain(text: str) -> Text:
    """Return a text without markup and control characters, whose long lines are cut."""
    return Text("\n".join(shorten(line, _MAX_LINE_CHARS) for line in visible(text).split("\n")))


def set_up_logging() -> None:
    """Show the toolkit's messages on stderr, and only errors of the libraries that it uses."""
    for name, value in _QUIET_LIBRARIES.items():
        os.environ.setdefault(name, value)
    root = logging.getLogger("detr_ft")
    root.handlers = [_ConsoleHandler()]
    root.setLevel(logging.INFO)
    root.propagate = False
    warnings.filterwarnings("ignore", category=FutureWarning)
    if rank() > 0:
        warnings.simplefilter("ignore")


def exit_with_status(command: Callable[P, R]) -> Callable[P, R]:
    """Turn an exception of a command into a message and an exit status.

    2 for invalid input, 130 for Ctrl-C, 128 plus the number for another signal, else 1: also for SystemExit(0) and other
    exceptions by which code of a recipe would end the process.
    """

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            set_up_logging()
            with shown_on(console):
                return command(*args, **kwargs)
        except InputError as error:
            _report("error", [*error.problems, *filter(None, [environment_fault(error)])])
            _exit(INVALID_INPUT)
        except Interrupted as error:
            console.print("the same command with --resume continues from the checkpoint", style="yellow")
            _exit(128 + error.signal)
        except BrokenPipeError:  # the reader of stdout closed it, as `head` does
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            raise CommandExit(FAILURE) from None
        except CommandExit:
            raise
        except BaseException as error:  # noqa: BLE001 - the process boundary
            if is_interrupt(error):
                console.print("interrupted", style="yellow")
                _exit(INTERRUPTED)
            if debugging():
                _print_traceback()
            fault = environment_fault(error)
            if fault:
                _report("error", [fault])
                _exit(INVALID_INPUT)
            text = str(error) if isinstance(error, Exception) else describe_error(error)
            if _report("failed", [text or type(error).__name__]) and not debugging():
                _errors.print("--debug before the command shows the traceback: detr-ft --debug ...", style="dim")
            _exit(FAILURE)

    return guarded


def debugging() -> bool:
    """Return True if --debug was given, which shows tracebacks."""
    return os.environ.get("DETR_FT_DEBUG") == "1"


def _report(kind: str, problems: Sequence[str]) -> bool:
    """Print problems unless another process of the run has; returns True if they were printed."""
    first = processes() == 1 or _is_first_report("\n".join(problems))
    if first:
        heading = Text.assemble((f"{kind}:", "bold red"), " ")
        for problem in problems[:_MAX_PROBLEMS]:
            _errors.print(heading + _plain(without_unsafe_advice(problem)), soft_wrap=True)
        if len(problems) > _MAX_PROBLEMS:
            _errors.print(heading + f"and {len(problems) - _MAX_PROBLEMS:,} more", soft_wrap=True)
    return first


def _is_first_report(text: str) -> bool:
    from detr_ft.utils.collectives import is_first_report  # loads torch

    return is_first_report(text)


def _print_traceback() -> None:
    print(visible(without_unsafe_advice(traceback.format_exc())), file=sys.stderr)


def _exit(status: int) -> NoReturn:
    if debugging() and isinstance(sys.exc_info()[1], (InputError, KeyboardInterrupt)):
        _print_traceback()
    raise CommandExit(status)
