"""What people see while a run goes: a live display on a terminal, plain lines elsewhere."""

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
from detr_ft.training.monitor.eta import Remaining
from detr_ft.utils.distributed import rank
from detr_ft.utils.formatting import metric
from detr_ft.utils.progress import terminal

logger = logging.getLogger(__name__)

_SHOWN = ("loss", "loss_ce", "loss_bbox", "loss_giou")


class Display(Protocol):
    """Who shows a run while it goes."""

    def start(self, steps: int, taken: int, seconds: float | None) -> None:
        """Training begins, or goes on: so many steps in all, of which so many are taken already, in so many seconds at most."""

    def step(self, step: int, row: dict[str, Any] | None) -> None:
        """A step was taken; `row` holds the averages since the last row, at every logging step."""

    def evaluating(self, done: int, total: int) -> None:
        """So many images of so many are evaluated."""

    def evaluation(self, row: dict[str, Any]) -> None:
        """An evaluation was made."""

    def stop(self) -> None:
        """Training is over, or interrupted."""


class PlainDisplay:
    """One line for each logged row, for logs and pipes."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._steps, self._remaining = 0, Remaining(0, None)

    def start(self, steps: int, taken: int, seconds: float | None) -> None:
        """Training begins, or goes on."""
        self._steps, self._remaining = steps, Remaining(steps, seconds)

    def step(self, step: int, row: dict[str, Any] | None) -> None:
        """A step was taken."""
        if row is not None:
            left = self._remaining.after(step, row["seconds_per_step"])
            self._say(f"step {step}/{self._steps}  {describe_row(row)}  {left} left")

    def evaluating(self, done: int, total: int) -> None:
        """So many images are evaluated: not worth a line."""

    def evaluation(self, row: dict[str, Any]) -> None:
        """An evaluation was made."""
        for line in lines_of_evaluation(row):
            self._say(line)

    def stop(self) -> None:
        """Training is over."""


class LiveDisplay:
    """A bar with loss terms, rate and time left, and a line for each evaluation above it."""

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
        self._remaining = Remaining(0, None)

    def start(self, steps: int, taken: int, seconds: float | None) -> None:
        """Training begins, or goes on."""
        self._remaining = Remaining(steps, seconds)
        self._progress.start()
        self._training = self._progress.add_task("train", total=steps, completed=taken, left="", values="")

    def step(self, step: int, row: dict[str, Any] | None) -> None:
        """A step was taken."""
        if self._training is None:
            return
        self._progress.update(self._training, completed=step)
        if row is not None:
            left = self._remaining.after(step, row["seconds_per_step"])
            self._progress.update(self._training, left=f"{left} left", values=describe_row(row))

    def evaluating(self, done: int, total: int) -> None:
        """So many images are evaluated."""
        if self._evaluating is None:
            self._evaluating = self._progress.add_task("evaluate", total=total, left="", values="")
        self._progress.update(self._evaluating, completed=done)

    def evaluation(self, row: dict[str, Any]) -> None:
        """An evaluation was made."""
        if self._evaluating is not None:
            self._progress.remove_task(self._evaluating)
            self._evaluating = None
        for line in lines_of_evaluation(row):
            self._progress.console.print(line, highlight=False, markup=False)

    def stop(self) -> None:
        """Training is over."""
        self._progress.stop()


def describe_row(row: dict[str, Any]) -> str:
    """Loss terms, how matched pairs do, and the rate of a logged row, in a line."""
    terms = "  ".join(f"{name.removeprefix('loss_')} {row[name]:.3f}" for name in _SHOWN if name in row)
    right = f"  class right {100 * row['class_accuracy']:.0f} %" if "class_accuracy" in row else ""
    overlap = f"  IoU {row['matched_iou']:.2f}" if "matched_iou" in row else ""
    return f"{terms}{right}{overlap}  {row['images_per_second']:.0f} images/s"


def lines_of_evaluation(row: dict[str, Any]) -> list[str]:
    """The headline figures of an evaluation in a line, and one for each remark on it."""
    changed = row.get("changed_since_last")
    moved = "" if changed is None else f", {100 * changed:.0f} % of the objects changed their query"
    figures = ", ".join(f"{HEADINGS[name]} {metric(row[name])}" for name in MAIN_METRICS)
    return [f"epoch {row['epoch']}: {figures}{moved}", *(f"  {remark}" for remark in row.get("remarks", []))]


def make_display() -> Display:
    """Return a live display on the command's terminal, else one that logs lines; silent on all processes but the main one."""
    if rank() > 0:
        return PlainDisplay(lambda line: None)
    console = terminal()
    if console is not None and console.is_terminal:
        return LiveDisplay(console)
    return PlainDisplay(lambda line: logger.info("%s", line))
