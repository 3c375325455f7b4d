"""The training loop: a page for a step, one for an epoch, one for evaluation."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from datasets import Dataset
from torch import Tensor
from transformers import DetrForObjectDetection, enable_full_determinism

from detr_ft.criterion import SetCriterion
from detr_ft.data.batches import Batches, aspects
from detr_ft.data.collate import TrainExamples
from detr_ft.data.transforms import TrainTransform
from detr_ft.errors import Interrupted, UserError
from detr_ft.models.attach import attach_criterion
from detr_ft.structures import Detections
from detr_ft.training.capsule import images_of, in_words, write_capsule
from detr_ft.training.checkpoints import Checkpoints
from detr_ft.training.display import Display
from detr_ft.training.ema import Ema
from detr_ft.training.evaluate import evaluate_split
from detr_ft.training.feed import Feed, StepOf
from detr_ft.training.interrupt import Signals, agreed
from detr_ft.training.log import Sums, TrainLog
from detr_ft.training.memory import save_memory_or_time
from detr_ft.training.optimizer import build_optimizer, training_table
from detr_ft.training.processes import join
from detr_ft.training.run_directory import RunDirectory
from detr_ft.training.schedule import build_schedule, go_to
from detr_ft.training.settings import OptimSettings, TrainSettings
from detr_ft.training.state import Progress, files_of, load_saved, load_tensors, load_weights
from detr_ft.training.step import StepFailed, Stepper, diverged
from detr_ft.training.stopping import Best, best_of

logger = logging.getLogger(__name__)

Evaluated = tuple[dict[str, Any], list[Detections]]

_HEADLINES = ("map", "map_50", "map_75")
_OVER = 1  # what processes agree on, where it is no signal: the time is over
_EVERY = 60.0  # seconds: an epoch's end is saved once the last checkpoint is as old


class TrainingFailed(RuntimeError):  # noqa: N818 - it tells what happened, not what kind of error it is
    """A step that can't be taken: the loss or a gradient is not finite, or a term failed. Says at which step and image."""


@dataclass(frozen=True)
class TrainResult:
    """What training gave: the last evaluation, its detections (in the order of the split), the log and the time it took."""

    metrics: dict[str, Any]
    detections: list[Detections]
    log: list[dict[str, Any]]
    seconds: float


class DetrTrainer:
    """Trains a DetrForObjectDetection by a criterion, on data sets in the schema, through accelerate.

    The parameters that require a gradient are trained. A step is that of `per_device_train_batch_size` images times
    `gradient_accumulation_steps` times the processes, and is the same however these share it out. `repeats` says how
    often each image comes in an epoch. Everything is written into `settings.output_dir`, which is made here: raises
    UserError where it holds something already, unless `checkpoint` is one of that run, which then goes on from it, bit
    for bit. `facts` are what a checkpoint is to tell of the run that wrote it.
    """

    def __init__(
        self,
        model: DetrForObjectDetection,
        criterion: SetCriterion,
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
        settings: TrainSettings,
        *,
        processor: Any,
        transform: TrainTransform,
        optim: OptimSettings | None = None,
        display: Display,
        repeats: Sequence[float] | None = None,
        checkpoint: Path | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings, self.facts = settings, facts or {}
        self.attached = attach_criterion(model, criterion)
        self.accelerator = join(settings.mixed_precision, settings.report_to, settings.output_dir)
        _make_deterministic(settings)
        self.run = RunDirectory(settings.output_dir)
        self.checkpoints = Checkpoints(self.run.checkpoints, settings.save_total_limit)
        if self.accelerator.is_main_process:
            self.run.create() if checkpoint is None else self.checkpoints.remove_partial()
        self.log = TrainLog(self.run, self.accelerator.is_main_process)
        self.processor, self.eval_dataset, self.display = processor, eval_dataset, display
        if checkpoint is not None:
            load_weights(model, checkpoint)
        # Convolutions are faster with the channels of a pixel side by side, on CPUs and on GPUs with tensor cores.
        self.model = model.to(memory_format=torch.channels_last)
        self.criterion = self.current = criterion
        self.format = transform.format
        self.examples = TrainExamples(train_dataset, transform, settings.seed)
        self.feed = Feed(
            self.examples,
            Batches(
                len(self.examples),
                self._images_a_step,
                settings.seed,
                aspects=None if transform.format.canvas else aspects(train_dataset),
                repeats=repeats,
            ),
            settings.num_train_epochs,
            settings.per_device_train_batch_size,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            settings.dataloader_num_workers,
            transform.format.canvas,
        )
        optimizer = build_optimizer(model, settings, optim or OptimSettings())
        save_memory_or_time(model, settings)
        self.wrapped, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.steps_an_epoch = len(self.feed.batches)
        self.steps = settings.num_train_epochs * self.steps_an_epoch
        # Made after `prepare` and stepped by hand: one step of the schedule is one step of the optimizer on any number
        # of processes.
        self.schedule = build_schedule(optimizer, settings, self.steps)
        self.ema = Ema(model, settings.ema_decay) if settings.ema_decay else None
        self.stepper = Stepper(
            self.accelerator,
            self.model,
            self.wrapped,
            self.optimizer,
            self.schedule,
            self.attached,
            self.format,
            settings.seed,
            settings.max_grad_norm,
            settings.per_device_train_batch_size,
            self.ema,
        )
        self.signals = Signals()
        self._began, self._evaluation = time.monotonic(), 0.0  # since when it trains, and how long an evaluation takes
        self.at = Progress(images_a_step=self._images_a_step)
        self.saved, self.saved_at = -1, time.monotonic()  # the step of the last checkpoint, and when that was
        if checkpoint is not None:
            self._restore(checkpoint)

    def train(self) -> TrainResult:
        """Train all epochs, or until the time or the patience is over; evaluate, save at the top of the run directory.

        On SIGINT or SIGTERM the step is finished and a checkpoint written, and Interrupted raised, on all processes.
        """
        self._began = time.monotonic() - self.at.seconds
        logger.info("what trains:\n%s", training_table(self.model, self.optimizer))
        self.accelerator.init_trackers("detr_ft")
        self.display.start(self.steps, self.at.step)
        try:
            with self.signals:
                evaluated = self._train()
                metrics, found = self._at_its_best(evaluated)
                self.save()
        finally:
            self.display.stop()
            for tracker in self.accelerator.trackers:
                tracker.finish()
        return TrainResult(metrics, found, self.log.rows, time.monotonic() - self._began)

    def _train(self) -> Evaluated | None:
        """Take the steps that are left, and answer the evaluation after the last of them, if it was its turn."""
        evaluated = self._evaluate_if_due()
        for number, work in enumerate(self.feed.steps(self.at.epoch, self.at.place)):
            if self._look_up() or self._out_of_patience():
                break
            if number == 0 or work.place == 0:
                self._begin(work.epoch)
            self._log(work, self._step(work))
            self.at.seconds = time.monotonic() - self._began
            self._save_if_due()
            evaluated = self._evaluate_if_due()
        self.save_checkpoint()
        return evaluated

    def evaluate(self, epoch: int) -> Evaluated:
        """COCO figures and detections on the evaluation split; also a row of the log. Nothing where there is no split.

        Of averaged weights, where there are; the row then has the headline figures of the raw ones beside them.
        """
        if self.eval_dataset is None:
            return {}, []
        began = time.monotonic()
        raw = (
            {f"raw_{name}": value for name, value in self._figures()[0].items() if name in _HEADLINES}
            if self.ema
            else {}
        )
        with self.ema.swapped() if self.ema else nullcontext():
            metrics, found = self._figures()
            row = {"step": self.at.step, "epoch": epoch} | {k: v for k, v in metrics.items() if k != "per_class"} | raw
            self._write(row)
            self.display.evaluation(row)
            self.at.evaluated, self._evaluation = self.at.step, time.monotonic() - began
            best = self._best()
            if best is not None and best.step == self.at.step:
                self._save_model("checkpoints/best")
        return metrics, found

    def save(self) -> None:
        """Save model and processor, as stock transformers loads them, at the top of the run; raw weights beside averages."""
        if self.ema:
            self._save_model("raw")
        with self.ema.swapped() if self.ema else nullcontext():
            self._save_model("")

    def _save_model(self, folder: str) -> None:
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.run.save_model(self.model, self.processor, folder)

    def _figures(self) -> Evaluated:
        return evaluate_split(
            self.accelerator,
            self.model,
            self.processor,
            self.eval_dataset,
            self.settings.per_device_eval_batch_size,
            self._evaluating,
            self._look_up,
        )

    def _at_its_best(self, evaluated: Evaluated | None) -> Evaluated:
        """The figures of the model as it is saved: after the last step, or of the best evaluation, which it then holds again."""
        best = self._best()
        if evaluated is None:
            evaluated = self.evaluate(self.at.epoch)
            best = self._best()
        if not self.settings.load_best_model_at_end or best is None or best.step == self.at.step:
            return evaluated
        load_saved(self.model, self.run.path / "checkpoints/best")
        self.ema = None  # what was saved is the average
        logger.info("the best evaluation was at step %d: the model is that one", best.step)
        return self._figures()

    def _best(self) -> Best | None:
        return best_of(self.log.rows, self.settings.metric_for_best_model, self.settings.early_stopping_threshold)

    def _out_of_patience(self) -> bool:
        best, patience = self._best(), self.settings.early_stopping_patience
        if best is None or patience is None or best.since < patience:
            return False
        logger.info("no evaluation of the last %d was better than that of step %d: training ends", patience, best.step)
        return True

    def save_checkpoint(self) -> None:
        """Write a checkpoint of where the run is, unless there is one."""
        if self.saved == self.at.step:
            return
        self.at.rows = len(self.log.rows)
        if self.accelerator.is_main_process:  # every process holds the same
            tensors = {
                "optimizer": self.optimizer.state_dict()["state"],
                "since": self.log.since.state(),
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
                "ema": self.ema.state_dict() if self.ema else {},
            }
            state = {"progress": self.at, "facts": self.facts}
            self.checkpoints.save(self.at.step, files_of(self.model, self.processor, tensors, state))
        self.saved, self.saved_at = self.at.step, time.monotonic()

    def _restore(self, checkpoint: Path) -> None:
        """Go on from a checkpoint; weights are loaded already. Learning rates are the settings', not the checkpoint's."""
        self.at, held = Progress.read(checkpoint), load_tensors(checkpoint)
        self.saved = self.at.step
        place = self.at.place * self.at.images_a_step // self._images_a_step  # as many images on, in steps of this size
        self.at.place, self.at.images_a_step = place, self._images_a_step
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": held["optimizer"], "param_groups": groups})
        go_to(self.schedule, self.at.step)
        if self.accelerator.scaler and held["scaler"]:
            self.accelerator.scaler.load_state_dict(held["scaler"])
        if self.ema and held["ema"]:
            self.ema.load_state_dict(held["ema"])
        self.log.cut(self.at.rows)
        self.log.since.restore(held["since"], self.accelerator.device)

    @property
    def _images_a_step(self) -> int:
        processes: int = self.accelerator.num_processes
        return self.settings.per_device_train_batch_size * self.settings.gradient_accumulation_steps * processes

    def _begin(self, epoch: int) -> None:
        self.model.train()
        self.attached.criterion = self.current = self.criterion.at(epoch)

    def _look_up(self) -> bool:
        """Save and end where a process was asked to end; else answer whether the time is over."""
        wish = agreed(
            self.signals.received or int(self._over_time()), self.accelerator.num_processes, self.accelerator.device
        )
        if wish in (0, _OVER):
            return wish == _OVER
        self.save_checkpoint()
        self.accelerator.wait_for_everyone()  # nobody ends, and ends the others, before the checkpoint is whole
        logger.warning(
            "%s: stopped after step %d of %d, which is saved in %s",
            signal.Signals(wish).name, self.at.step, self.steps, self.checkpoints.folder / f"step-{self.at.step}",
        )  # fmt: skip
        raise Interrupted(wish)

    def _over_time(self) -> bool:
        """Whether the time that is left is what an evaluation takes."""
        most = self.settings.max_minutes
        return most is not None and time.monotonic() - self._began + self._evaluation > 60 * most

    def _save_if_due(self) -> None:
        every = self.settings.save_steps
        old = time.monotonic() - self.saved_at > _EVERY
        if self.at.step == self.steps or (self.at.step % every == 0 if every else self.at.place == 0 and old):
            self.save_checkpoint()

    def _evaluate_if_due(self) -> tuple[dict[str, Any], list[Detections]] | None:
        """Evaluate at the end of an epoch whose turn it is, and of the last one."""
        every, epochs = self.settings.eval_epochs, self.at.epoch
        due = self.at.place == 0 and epochs > 0 and self.at.evaluated != self.at.step
        if due and (epochs >= self.settings.num_train_epochs or (every and epochs % every == 0)):
            return self.evaluate(epochs)
        return None

    def _write(self, row: dict[str, Any]) -> None:
        self.log.write(row)
        if self.accelerator.trackers:
            self.accelerator.log({name: value for name, value in row.items() if value is not None}, step=self.at.step)

    def _evaluating(self, done: int) -> None:
        self.display.evaluating(done, len(self.eval_dataset or ()))

    def _step(self, work: StepOf) -> dict[str, Tensor]:
        """Take a step; one that can't be taken ends the run, with a capsule to look into it."""
        try:
            values = self.stepper.take(work, self.at.step + 1)
        except StepFailed as failed:
            raise TrainingFailed(self._told(failed, work)) from failed
        ends = work.place + 1 == self.steps_an_epoch
        self.at.step, self.at.epoch, self.at.place = self.at.step + 1, work.epoch + ends, 0 if ends else work.place + 1
        return values

    def _told(self, failed: StepFailed, work: StepOf) -> str:
        """What there is to say of a failed step, after its capsule is written."""
        number, images = self.at.step + 1, images_of(failed.share, self.examples.split)
        terms = {name: value.item() for name, value in failed.terms.items()}
        told = {
            "why": failed.why, "images": images, "terms": terms, "epoch": work.epoch, "place": work.place,
            "process": self.accelerator.process_index, "seed": self.settings.seed,
            "mixed_precision": self.accelerator.mixed_precision,
            "frozen": [name for name, one in self.model.named_parameters() if not one.requires_grad],
            "live_norms": any(isinstance(one, torch.nn.BatchNorm2d) for one in self.model.modules()),
            "facts": self.facts,
        }  # fmt: skip
        process = self.accelerator.process_index
        folder = self.run.path / "failures" / (f"process-{process}" if process else "")
        try:
            capsule = write_capsule(
                folder, number, failed.share, self.attached.step, self.model, self.processor, self.current, told
            )
            after = f"To look into it: detr-ft replay {capsule}"
        except UserError as error:
            after = f"It couldn't be kept to look into it: {error}"
        return f"step {number}, images {in_words(images)}: {failed.why}; nothing of this step was applied. {after}"

    def _log(self, work: StepOf, values: dict[str, Tensor]) -> None:
        self.log.since.add(work.images, values)
        row = None
        if self.at.step % self.settings.logging_steps == 0 or self.at.step == 1:
            row = {
                "step": self.at.step,
                "epoch": round(self.at.step / self.steps_an_epoch, 3),
                "learning_rate": self.schedule.get_last_lr()[-1],
                **self.log.since.means(self.accelerator.num_processes),
            }
            self.log.since = Sums()
            self._write(row)
            losses = [one["loss"] for one in self.log.rows if "loss" in one]
            if diverged(losses):
                why = f"the loss has diverged: {losses[-1]:.3g}, and it was {min(losses):.3g}; lower the learning rate"
                raise TrainingFailed(self._told(StepFailed(why, work.share, values), work))
        self.display.step(self.at.step, row)


def _make_deterministic(settings: TrainSettings) -> None:
    if settings.full_determinism:
        enable_full_determinism(settings.seed)
    else:
        set_seed(settings.seed)
