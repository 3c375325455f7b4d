"""Progress display: silent unless the command line shows it on its terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

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
def status(text: str) -> Iterator[None]:
    """Show a line with a spinner within the context."""
    if _console is None:
        yield
        return
    with _console.status(text):
        yield


def track(items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show a progress bar, which disappears at the end."""
    if _console is None or not _console.is_terminal:
        yield from items
        return
    yield from rich_track(items, text, total, console=_console, transient=True)
