"""Progress display: silent unless the command line shows it on its terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track as rich_track
from rich.text import Text

from detr_ft.utils.formatting import visible

T = TypeVar("T")

_console: Console | None = None


@contextmanager
def shown_on(console: Console) -> Iterator[None]:
    """Show progress on a console within the context."""
    global _console
    before, _console = _console, console
    try:
        yield
    finally:
        _console = before


def terminal() -> Console | None:
    """Return the console that shows progress, None if there is none."""
    return _console


@contextmanager
def library_bars_hidden() -> Iterator[None]:
    """Hide the progress bars of transformers and of the Hub's client within the context."""
    from huggingface_hub import utils  # neither is loaded for a command that only parses its arguments
    from transformers.utils import logging as library

    hub: Any = utils
    of_library, of_hub = library.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
    library.disable_progress_bar()  # of both
    try:
        yield
    finally:
        if of_library:
            library.enable_progress_bar()  # of both
        if of_library and not of_hub:
            hub.disable_progress_bars()
        elif of_hub and not of_library:
            hub.enable_progress_bars()


@contextmanager
def status(text: str) -> Iterator[None]:
    """Show a line with a spinner within the context."""
    if _console is None:
        yield
        return
    with _console.status(Text(visible(text))):
        yield


def track(items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show a progress bar, which disappears at the end."""
    if _console is None or not _console.is_terminal:
        yield from items
        return
    yield from rich_track(items, text, total, console=_console, transient=True)
