"""The display of a run: progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from detr_ft.evaluation.metrics import HEADINGS, MAIN_METRICS
from detr_ft.training.monitor.eta import RemainingTime
from detr_ft.utils.distributed import rank
from detr_ft.utils.formatting import metric, percent, visible
from detr_ft.utils.progress import terminal

logger = logging.getLogger(__name__)

_SHOWN_TERMS = ("loss", "loss_ce", "loss_bbox", "loss_giou")


class Display(Protocol):
    """Shows a run while it trains."""

    def start(self, steps: int, step: int, seconds_left: float | None) -> None:
        """Start, or resume after `step` of `steps` steps, with at most `seconds_left` to train."""

    def step(self, step: int, row: dict[str, Any] | None) -> None:
        """Show that a step was taken; `row` has the averages since the last row, at every logging step."""

    def evaluating(self, images: int, total: int) -> None:
        """Show that `images` of `total` images are evaluated."""

    def evaluation(self, row: dict[str, Any]) -> None:
        """Show the row of an evaluation."""

    def stop(self) -> None:
        """End, after the training or an interruption."""


class PlainDisplay:
    """A line for each row of the log, for files and pipes."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._steps, self._remaining = 0, RemainingTime(0, None)

    def start(self, steps: int, step: int, seconds_left: float | None) -> None:
        """Start, or resume."""
        self._steps, self._remaining = steps, RemainingTime(steps, seconds_left)

    def step(self, step: int, row: dict[str, Any] | None) -> None:
        """Write a line if there is a row."""
        if row is not None:
            left = self._remaining.after(step, row["seconds_per_step"])
            self._write(f"step {step}/{self._steps}  {describe_row(row)}  {left} left")

    def evaluating(self, images: int, total: int) -> None:
        """Write nothing."""

    def evaluation(self, row: dict[str, Any]) -> None:
        """Write the lines of an evaluation."""
        for line in lines_of_evaluation(row):
            self._write(line)

    def stop(self) -> None:
        """End."""


class LiveDisplay:
    """A progress bar with loss terms, speed and time left, and a line for each evaluation above it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("[dim]{task.fields[values]}"),
            console=console,
            transient=True,
        )
        self._training: TaskID | None = None
        self._evaluating: TaskID | None = None
        self._remaining = RemainingTime(0, None)

    def start(self, steps: int, step: int, seconds_left: float | None) -> None:
        """Show the bar."""
        self._remaining = RemainingTime(steps, seconds_left)
        self._progress.start()
        self._training = self._progress.add_task("train", total=steps, completed=step, left="", values="")

    def step(self, step: int, row: dict[str, Any] | None) -> None:
        """Move the bar."""
        if self._training is None:
            return
        self._progress.update(self._training, completed=step)
        if row is not None:
            left = self._remaining.after(step, row["seconds_per_step"])
            self._progress.update(self._training, left=f"{left} left", values=describe_row(row))

    def evaluating(self, images: int, total: int) -> None:
        """Show a second bar during an evaluation."""
        if self._evaluating is None:
            self._evaluating = self._progress.add_task("evaluate", total=total, left="", values="")
        self._progress.update(self._evaluating, completed=images)

    def evaluation(self, row: dict[str, Any]) -> None:
        """Replace the second bar by the lines of the evaluation."""
        if self._evaluating is not None:
            self._progress.remove_task(self._evaluating)
            self._evaluating = None
        for line in lines_of_evaluation(row):
            self._progress.console.print(visible(line), highlight=False, markup=False)

    def stop(self) -> None:
        """Remove the bars."""
        self._progress.stop()


def describe_row(row: dict[str, Any]) -> str:
    """Return loss terms, quality of the matched pairs and speed of a row, in a line."""
    terms = "  ".join(f"{name.removeprefix('loss_')} {row[name]:.3f}" for name in _SHOWN_TERMS if name in row)
    right = f"  class right {percent(row['class_accuracy'])}" if "class_accuracy" in row else ""
    overlap = f"  IoU {row['matched_iou']:.2f}" if "matched_iou" in row else ""
    return f"{terms}{right}{overlap}  {row['images_per_second']:.0f} images/s"


def lines_of_evaluation(row: dict[str, Any]) -> list[str]:
    """Return a line with the main metrics of an evaluation, and one for each remark on it."""
    changed = row.get("changed_since_last")
    changes = "" if changed is None else f", {percent(changed)} of the objects changed their query"
    metrics = ", ".join(f"{HEADINGS[name]} {metric(row[name])}" for name in MAIN_METRICS)
    return [f"epoch {row['epoch']}: {metrics}{changes}", *(f"  {remark}" for remark in row.get("remarks", []))]


def make_display() -> Display:
    """Return a live display on the command's terminal, else one that logs lines.

    Only the main process shows anything.
    """
    if rank() > 0:
        return PlainDisplay(lambda line: None)
    console = terminal()
    if console is not None and console.is_terminal:
        return LiveDisplay(console)
    return PlainDisplay(lambda line: logger.info("%s", line))
