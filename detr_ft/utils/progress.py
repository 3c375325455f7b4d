"""Progress messages on stderr, of the main process alone."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from detr_ft.utils.distributed import rank

console = Console(stderr=True, highlight=False, quiet=rank() > 0)  # of a run's processes the main one speaks,
_faults = Console(stderr=True, highlight=False)  # and whichever met what went wrong


def say(text: str) -> None:
    """A line for people, on stderr."""
    console.print(escape(text), soft_wrap=True)


def warn(text: str) -> None:
    """A line for people that they mustn't miss, on stderr."""
    console.print(escape(text), style="bold yellow", soft_wrap=True)
