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
from rich.markup import escape

from detr_ft.errors import InputError, Interrupted
from detr_ft.utils import components
from detr_ft.utils.distributed import processes, rank
from detr_ft.utils.environment_faults import environment_fault
from detr_ft.utils.progress import shown_on

P = ParamSpec("P")
R = TypeVar("R")

INVALID_INPUT, FAILURE, INTERRUPTED = 2, 1, 130
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
        target.print(escape(text), style=style, soft_wrap=True)


def without_unsafe_advice(text: str) -> str:
    """Return the message of a library without sentences that advise to run the code in a file."""
    lines = []
    for line in text.splitlines():
        sentences = re.split(r"(?<=[.!?])\s+", line)
        safe = [sentence for sentence in sentences if not _UNSAFE_ADVICE.search(sentence)]
        lines += [line] if len(safe) == len(sentences) else [" ".join(safe)] if safe else []
    return "\n".join(lines) or "the file has objects that are not loaded"


def print_message(text: str) -> None:
    """Print a message on stderr."""
    console.print(escape(text), soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    console.print(escape(text), style="bold yellow", soft_wrap=True)


def print_result(text: str) -> None:
    """Print a result on stdout; on the main process only."""
    if rank() == 0:
        print(text)


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

    2 for invalid input, 130 for Ctrl-C, 128 plus the number for another signal, else 1.
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
        except KeyboardInterrupt:
            console.print("interrupted", style="yellow")
            _exit(INTERRUPTED)
        except BrokenPipeError:  # the reader of stdout closed it, as `head` does
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            raise SystemExit(FAILURE) from None
        except Exception as error:  # noqa: BLE001 - the process boundary
            if debugging():
                _print_traceback()
            fault = environment_fault(error)
            if fault:
                _report("error", [fault])
                _exit(INVALID_INPUT)
            if _report("failed", [str(error) or type(error).__name__]) and not debugging():
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
        for problem in problems:
            _errors.print(f"[bold red]{kind}:[/] {escape(without_unsafe_advice(problem))}", soft_wrap=True)
    return first


def _is_first_report(text: str) -> bool:
    from detr_ft.utils.collectives import is_first_report  # loads torch

    return is_first_report(text)


def _print_traceback() -> None:
    print(without_unsafe_advice(traceback.format_exc()), file=sys.stderr)


def _exit(status: int) -> NoReturn:
    if debugging() and isinstance(sys.exc_info()[1], (InputError, KeyboardInterrupt)):
        _print_traceback()
    raise SystemExit(status)
