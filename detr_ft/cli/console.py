"""How the command speaks: people's words on stderr, results on stdout, one message for a user's mistake."""

from __future__ import annotations

import functools
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn, ParamSpec, TypeVar

from rich.markup import escape

from detr_ft.errors import InputError, Interrupted
from detr_ft.utils.distributed import processes, rank
from detr_ft.utils.progress import _faults, console

P = ParamSpec("P")
R = TypeVar("R")

USER_ERROR, FAILURE, INTERRUPTED = 2, 1, 130


class _ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "none"
        where = _faults if record.levelno >= logging.ERROR else console
        where.print(escape(self.format(record)), style=style, soft_wrap=True)


def answer(text: str) -> None:
    """A result, on stdout, of the main process alone."""
    if rank() == 0:
        print(text)


def set_up_logging() -> None:
    """Our own notices on stderr; of the libraries below only what is wrong, and no progress bars of theirs."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    root = logging.getLogger("detr_ft")
    root.handlers = [_ConsoleHandler()]
    root.setLevel(logging.INFO)
    root.propagate = False
    warnings.filterwarnings("ignore", category=FutureWarning)
    if rank() > 0:
        warnings.simplefilter("ignore")
    import datasets
    from transformers import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()


def exit_with_status(command: Callable[P, R]) -> Callable[P, R]:
    """Turn what a command raises into a message and an exit status: 2 for the user's mistake, 130, or 1."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            set_up_logging()
            return command(*args, **kwargs)
        except InputError as error:
            _tell("error", error.problems)
            _exit(USER_ERROR)
        except Interrupted as error:
            console.print("the same command with --resume goes on from there", style="yellow")
            _exit(128 + error.signal)
        except KeyboardInterrupt:
            console.print("interrupted", style="yellow")
            _exit(INTERRUPTED)
        except BrokenPipeError:  # the reader of our output left, as `head` does
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            raise SystemExit(FAILURE) from None
        except Exception as error:  # noqa: BLE001 - the one place where a fault of ours becomes a message
            if debugging():
                traceback.print_exc()
            if _tell("failed", [str(error) or type(error).__name__]) and not debugging():
                _faults.print("--debug before the command shows where: detr-ft --debug ...", style="dim")
            _exit(FAILURE)

    return guarded


def debugging() -> bool:
    """Whether the user asked for tracebacks with --debug."""
    return os.environ.get("DETR_FT_DEBUG") == "1"


def _tell(kind: str, problems: Sequence[str]) -> bool:
    """Tell what went wrong, unless another process of the run has told the same already; whether it was told."""
    told = processes() == 1 or _is_first_report("\n".join(problems))
    if told:
        for problem in problems:
            _faults.print(f"[bold red]{kind}:[/] {escape(problem)}", soft_wrap=True)
    return told


def _is_first_report(text: str) -> bool:
    from detr_ft.utils.collectives import is_first_report  # torch, which a single process need not load for an error

    return is_first_report(text)


def _exit(status: int) -> NoReturn:
    if debugging() and sys.exc_info()[0] in (InputError, KeyboardInterrupt):
        traceback.print_exc()
    raise SystemExit(status)
