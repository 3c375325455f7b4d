"""The log of a run: a row of averages at every logging step, and a row for each evaluation."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from detr_ft.evaluation.metrics import COCO_METRICS
from detr_ft.run_directory import LOG, RunDirectory
from detr_ft.training.step_totals import add_up
from detr_ft.utils.collectives import mean_over_processes

logger = logging.getLogger(__name__)

Row = dict[str, Any]


class Interval:
    """The sums of the steps since the last row."""

    def __init__(self) -> None:
        self.terms: dict[str, Tensor] = {}
        self.steps = self.images = 0
        self._started_at = time.monotonic()

    def add(self, images: int, terms: Mapping[str, Tensor]) -> None:
        """Add a step of so many images, with the value of each term."""
        self.terms = add_up([self.terms, terms] if self.terms else [terms])
        self.steps, self.images = self.steps + 1, self.images + images

    def means(self) -> Row:
        """Return speed, and the mean of each term over steps and processes."""
        seconds = time.monotonic() - self._started_at
        means = mean_over_processes(self.terms)
        # One copy of all values synchronizes the device once.
        values = torch.stack([value.float() for value in means.values()]).tolist() if means else []
        return {
            "images_per_second": round(self.images / seconds, 1),
            "seconds_per_step": round(seconds / self.steps, 4),
            **{name: round(value / self.steps, 5) for name, value in zip(means, values, strict=True)},
        }

    def state(self) -> dict[str, Any]:
        """Return the sums for a checkpoint."""
        return {"terms": self.terms, "steps": self.steps, "images": self.images}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore the sums of a checkpoint."""
        self.terms = {name: value.to(device) for name, value in state["terms"].items()}
        self.steps, self.images = int(state["steps"]), int(state["images"])


class TrainLog:
    """`log.jsonl`, written by the main process, and the values that later rows and decisions need.

    A long run has many thousands of rows: only their losses, the last row of a step, and the rows of evaluations stay in
    memory.
    """

    def __init__(self, run: RunDirectory, writes: bool) -> None:
        self.interval = Interval()
        self._run, self._writes = run, writes
        self._clear()

    def _clear(self) -> None:
        self.rows = 0
        self.losses: list[float] = []
        self.last_step: Row = {}
        self.evaluations: list[Row] = []

    def start_interval(self) -> None:
        """Start the sums of the next row."""
        self.interval = Interval()

    def write(self, row: Row) -> None:
        """Add a row."""
        self._add(row)
        if self._writes:
            self._run.log(row)

    def _add(self, row: Row) -> None:
        self.rows += 1
        if "loss" in row:
            self.losses.append(row["loss"])
            self.last_step = row
        else:
            self.evaluations.append(row)

    def read(self) -> list[Row]:
        """Return all rows of the file, without damaged lines."""
        return [row for row in map(_row, self._run.log_lines()) if row is not None]

    def cut(self, rows: int) -> None:
        """Return to the first `rows` rows of the file: the later ones are of steps that a resumed run repeats.

        Damaged lines are removed; a warning reports them, and rows that are missing.
        """
        read = dict(enumerate(map(_row, self._run.log_lines()[:rows]), start=1))
        valid = [row for row in read.values() if row is not None]
        self._clear()
        for row in valid:
            self._add(row)
        damaged = [str(number) for number, row in read.items() if row is None]
        if len(valid) < rows:
            logger.warning(
                "%s: %d of %d rows are left%s. The run continues without the others.",
                self._run.path / LOG, len(valid), rows,
                f", line {', '.join(damaged[:5])} is damaged" if damaged else "",
            )  # fmt: skip
        if self._writes:
            self._run.write_text(LOG, "".join(json.dumps(row) + "\n" for row in valid))


def evaluations(run: RunDirectory, rows: int) -> list[Row]:
    """Return the evaluations among the first rows of the log of a run, without damaged lines."""
    return [row for row in map(_row, run.log_lines()[:rows]) if row is not None and "loss" not in row]


def _row(line: bytes) -> Row | None:
    """Return a row, None for a damaged one: no JSON object, or values of another kind."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    required = [row[name] for name in ("step", "loss") if name in row]
    optional = [row[name] for name in ("epoch", "no_object_share", *COCO_METRICS) if row.get(name) is not None]
    return (
        row if all(isinstance(value, int | float) and math.isfinite(value) for value in required + optional) else None
    )
