"""The log of a run: a row of averages at every logging step, a row for each evaluation."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import torch
from torch import Tensor

from detr_ft.run_directory import LOG, RunDirectory
from detr_ft.training.step_totals import add_up, over_processes

logger = logging.getLogger(__name__)


class Sums:
    """What was seen since the last row."""

    def __init__(self) -> None:
        self.terms: dict[str, Tensor] = {}
        self.steps = self.images = 0
        self._began = time.monotonic()

    def add(self, images: int, terms: dict[str, Tensor]) -> None:
        """Another step of so many images, with the value of each term."""
        self.terms = add_up([self.terms, terms] if self.terms else [terms])
        self.steps, self.images = self.steps + 1, self.images + images

    def means(self, processes: int) -> dict[str, Any]:
        """Speed, and the mean of each term over steps and processes."""
        seconds = time.monotonic() - self._began
        means = over_processes(self.terms, processes)
        # One wait for the device, rather than one for each.
        values = torch.stack([value.float() for value in means.values()]).tolist() if means else []
        return {
            "images_per_second": round(self.images / seconds, 1),
            "seconds_per_step": round(seconds / self.steps, 4),
            **{name: round(value / self.steps, 5) for name, value in zip(means, values, strict=True)},
        }

    def state(self) -> dict[str, Any]:
        """What a run that goes on needs of it."""
        return {"terms": self.terms, "steps": self.steps, "images": self.images}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Take `state()` back."""
        self.terms = {name: value.to(device) for name, value in state["terms"].items()}
        self.steps, self.images = state["steps"], state["images"]


class TrainLog:
    """`log.jsonl`, written by the main process, and what the next row is made from.

    Of the rows, which a long run has many thousands of, it keeps what is asked for while the run trains: the losses, the
    last row of a step, and the rows of evaluations.
    """

    def __init__(self, run: RunDirectory, writes: bool) -> None:
        self.since = Sums()
        self._run, self._writes = run, writes
        self._forget()

    def _forget(self) -> None:
        self.rows = 0
        self.losses: list[float] = []
        self.last_step: dict[str, Any] = {}
        self.evaluations: list[dict[str, Any]] = []

    def write(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self._remember(row)
        if self._writes:
            self._run.log(row)

    def _remember(self, row: dict[str, Any]) -> None:
        self.rows += 1
        if "loss" in row:
            self.losses.append(row["loss"])
            self.last_step = row
        else:
            self.evaluations.append(row)

    def read(self) -> list[dict[str, Any]]:
        """All rows, from the file; lines that are no rows are left out."""
        return [row for row in map(_row, self._run.log_lines()) if row is not None]

    def cut(self, rows: int) -> None:
        """Go back to the first `rows` rows of the file: those after them are of steps that are taken again.

        Lines that are no rows are left out, which is told on the log; so is a file that is shorter than it was.
        """
        read = {number: _row(line) for number, line in enumerate(self._run.log_lines()[:rows], start=1)}
        kept = [row for row in read.values() if row is not None]
        self._forget()
        for row in kept:
            self._remember(row)
        spoiled = [str(number) for number, row in read.items() if row is None]
        if len(kept) < rows:
            logger.warning(
                "%s: %d of %d rows are left%s; the run goes on, and its log lacks them",
                self._run.path / LOG, len(kept), rows,
                f", line {', '.join(spoiled[:5])} is no row" if spoiled else "",
            )  # fmt: skip
        if self._writes:
            self._run.write_text(LOG, "".join(json.dumps(row) + "\n" for row in kept))


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None
