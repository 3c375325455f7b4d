"""All that observes a run without changing it: log, trackers, display, evaluations, callbacks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from detr_ft.evaluation.metrics import MAIN_METRICS
from detr_ft.training.callbacks import Callbacks
from detr_ft.training.monitor.display import Display
from detr_ft.training.monitor.eta import SpeedWatch, StepTimer
from detr_ft.training.monitor.evaluator import Evaluation, Evaluator
from detr_ft.training.monitor.matching import matching_statistics, tally
from detr_ft.training.monitor.training_log import Row, TrainLog
from detr_ft.training.optimizer import logged_rates
from detr_ft.training.settings import TrainSettings
from detr_ft.training.step import AppliedStepError, StepAttempt, Stepper
from detr_ft.training.step_loader import MicroBatch, StepBatch, StepLoader
from detr_ft.training.step_totals import totals_of_batch

logger = logging.getLogger(__name__)

_EPOCHS_BETWEEN_DIAGNOSES = 10  # of a model that detects nothing


@dataclass
class Monitor:
    """The observers of a run. All processes call them; the main process writes."""

    settings: TrainSettings
    loader: StepLoader
    stepper: Stepper
    log: TrainLog
    display: Display
    evaluator: Evaluator
    callbacks: Callbacks
    timer: StepTimer = field(default_factory=StepTimer)
    speed: SpeedWatch = field(default_factory=SpeedWatch)
    _diagnosed: tuple[int, list[str]] | None = None

    def start(self, step: int, seconds_left: float | None) -> None:
        """Start trackers and display after `step` steps."""
        self.stepper.accelerator.init_trackers("detr_ft")
        self.display.start(self.loader.total_steps, step, seconds_left)

    def stop(self) -> None:
        """Stop display and trackers."""
        self.display.stop()
        for tracker in self.stepper.accelerator.trackers:
            tracker.finish()

    def logs(self, step: int) -> bool:
        """Return whether a step gets a row of the log."""
        return step == 1 or step % self.settings.logging_steps == 0

    def log_step(self, step: int) -> Row:
        """Write and return the row of a step: learning rates, means since the last row, matching statistics.

        Raises AppliedStepError if a term fails in the statistics.
        """
        stepper = self.stepper
        with stepper.named_failures(stepper.attempt, kind=AppliedStepError):
            statistics = matching_statistics(
                tally(stepper.epoch_criterion, *scored) for scored in stepper.attempt.scored
            )
        row = {
            "step": step,
            "epoch": round(step / self.loader.steps_per_epoch, 3),
            **logged_rates(stepper.optimizer),
            **self.log.interval.means(),
            **statistics,
        }
        self.log.start_interval()
        self._write(row, step)
        return row

    def after_step(
        self, batch: StepBatch, step: int, terms: Mapping[str, Tensor], row: Row | None, seconds_left: float | None
    ) -> None:
        """Show a step, with its row if it has one."""
        self.display.step(step, row)
        own_images = sum(len(micro.rows) for micro in batch.micro_batches)
        estimate = self.timer.after_step(own_images, self.loader.total_steps - step, seconds_left)
        if estimate:
            logger.info(estimate)
        slower = row and self.speed.after(row["images_per_second"])
        if slower:
            logger.warning(slower)
        self.callbacks.on_step(self.stepper.model, step, terms, row)

    def measure(self, check_stop: Callable[[], object]) -> Evaluation:
        """Evaluate the present weights; `check_stop` is called with every batch."""
        return self.evaluator.evaluate(self.display.evaluating, check_stop)

    def log_evaluation(self, step: int, epoch: int, metrics: Mapping[str, Any], raw: Mapping[str, Any]) -> None:
        """Write and show the row of an evaluation: its metrics, those of `raw` weights, and remarks.

        Raises AppliedStepError if a term fails on the sample of training images.
        """
        row: Row = {"step": step, "epoch": epoch}
        row |= {name: value for name, value in metrics.items() if name != "per_class"}
        row |= {f"raw_{name}": raw[name] for name in MAIN_METRICS if raw}
        fraction = step / self.loader.total_steps
        row |= self.evaluator.matching_changes(
            self.stepper.epoch_criterion,
            self.log.last_step,
            fraction,
            lambda micro: self._failures_of(micro, step, epoch),
        )
        if step and (epoch % _EPOCHS_BETWEEN_DIAGNOSES == 0 or epoch >= self.settings.num_train_epochs):
            row["remarks"] = [*row.get("remarks", []), *self.diagnosis(metrics, step)]
        self._write(row, step)
        self.display.evaluation(row)

    def diagnosis(self, metrics: Mapping[str, Any], step: int) -> list[str]:
        """Return the likely causes of an mAP near 0 after a step, computed once; empty for a higher one."""
        if self._diagnosed is None or self._diagnosed[0] != step:
            self._diagnosed = step, self.evaluator.diagnosis(metrics, self.log, step)
        return self._diagnosed[1]

    def _failures_of(self, micro: MicroBatch, step: int, epoch: int) -> AbstractContextManager[None]:
        """Return a context that names the failures of a term on some images after a step."""
        totals = totals_of_batch(micro, self.stepper.model.config.num_labels)
        attempt = StepAttempt(StepBatch(epoch, 0, len(micro.rows), [micro]), step, totals)
        return self.stepper.named_failures(attempt, kind=AppliedStepError)

    def _write(self, row: Row, step: int) -> None:
        self.log.write(row)
        accelerator = self.stepper.accelerator
        if accelerator.trackers:
            numbers = {name: value for name, value in row.items() if isinstance(value, (int, float))}
            accelerator.log(numbers, step=step)
