"""The training loop: a page for a step, one for an epoch, one for evaluation."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import DetrForObjectDetection, get_scheduler

from detr_ft.criterion import CriterionError, SetCriterion, find_fault
from detr_ft.data.batches import Batches, aspects
from detr_ft.data.collate import TrainExamples, collate
from detr_ft.data.transforms import TrainTransform
from detr_ft.models.attach import attach_criterion
from detr_ft.models.freeze import frozen_norms
from detr_ft.structures import Detections
from detr_ft.training.display import Display
from detr_ft.training.evaluate import evaluate_split
from detr_ft.training.optimizer import build_optimizer
from detr_ft.training.processes import on_cpus
from detr_ft.training.run_directory import RunDirectory
from detr_ft.training.settings import OptimSettings, TrainSettings

logger = logging.getLogger(__name__)


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

    The parameters that require a gradient are trained. `repeats` says how often each image comes in an epoch. Everything is written into `settings.output_dir`, which is made
    here: raises UserError where it holds something already.
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
    ) -> None:
        self.settings = settings
        self.accelerator = Accelerator(
            cpu=on_cpus(),
            mixed_precision="bf16" if settings.bf16 else "no",
            dataloader_config=DataLoaderConfiguration(even_batches=True, non_blocking=True),
        )
        set_seed(settings.seed)
        self.run = RunDirectory(settings.output_dir)
        if self.accelerator.is_main_process:
            self.run.create()
        self.processor, self.eval_dataset, self.display = processor, eval_dataset, display
        # Convolutions are faster with the channels of a pixel side by side, on CPUs and on GPUs with tensor cores.
        self.model = model.to(memory_format=torch.channels_last)
        self.criterion = self.current = criterion
        self.attached = attach_criterion(model, criterion)
        self.format = transform.format
        self.examples = TrainExamples(train_dataset, transform, settings.seed)
        self.batches = Batches(
            len(self.examples),
            settings.per_device_train_batch_size,
            settings.seed,
            aspects=None if transform.format.canvas else aspects(train_dataset),
            repeats=repeats,
        )
        loader = DataLoader(
            self.examples,
            batch_sampler=self.batches,
            num_workers=settings.dataloader_num_workers,
            collate_fn=partial(collate, canvas=transform.format.canvas),
            pin_memory=torch.cuda.is_available(),
        )
        optimizer = build_optimizer(model, settings, optim or OptimSettings())
        self.wrapped, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        self.steps = settings.num_train_epochs * len(self.loader)
        # Made after `prepare` and stepped by hand: one step of the schedule is one step of the optimizer on any number
        # of processes.
        self.schedule = get_scheduler(
            settings.lr_scheduler_type, optimizer, min(settings.warmup_steps, self.steps), self.steps
        )
        self.log: list[dict[str, Any]] = []
        self.step = 0

    def train(self) -> TrainResult:
        """Train all epochs, evaluate, save model and processor at the top of the run directory.

        On an interruption the model as it is goes to `checkpoints/interrupted` before the exception travels on.
        """
        started = time.monotonic()
        metrics: dict[str, Any] = {}
        found: list[Detections] = []
        self.display.start(self.steps)
        try:
            for epoch in range(self.settings.num_train_epochs):
                self._epoch(epoch)
                last = epoch + 1 == self.settings.num_train_epochs
                if last:
                    self.save()  # before the evaluation: whatever stops that, the model is safe
                every = self.settings.eval_epochs
                if last or (every and (epoch + 1) % every == 0):
                    metrics, found = self.evaluate(epoch + 1)
        except KeyboardInterrupt:
            self.save("checkpoints/interrupted")
            logger.warning(
                "interrupted at step %d; the model as it is: %s/checkpoints/interrupted", self.step, self.run.path
            )
            raise
        finally:
            self.display.stop()
        return TrainResult(metrics, found, self.log, time.monotonic() - started)

    def evaluate(self, epoch: int) -> tuple[dict[str, Any], list[Detections]]:
        """COCO figures and detections on the evaluation split; also a row of the log. Nothing where there is no split."""
        if self.eval_dataset is None:
            return {}, []
        metrics, found = evaluate_split(
            self.accelerator,
            self.model,
            self.processor,
            self.eval_dataset,
            self.settings.per_device_eval_batch_size,
            lambda done: self.display.evaluating(done, len(self.eval_dataset or ())),
        )
        row = {"step": self.step, "epoch": epoch} | {k: v for k, v in metrics.items() if k != "per_class"}
        self._write(row)
        self.display.evaluation(row)
        return metrics, found

    def save(self, folder: str = "") -> None:
        """Save model and processor, as stock transformers loads them, below the run directory."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            frozen_norms(self.model)
            self.run.save_model(self.model, self.processor, folder)

    def _epoch(self, epoch: int) -> None:
        self.model.train()
        self.examples.epoch = self.batches.epoch = epoch
        self.attached.criterion = self.current = self.criterion.at(epoch)
        sums: dict[str, Tensor] = {}
        since, began = 0, time.monotonic()
        for batch in self.loader:
            values = self._step(batch)
            sums = {name: sums.get(name, 0) + value for name, value in values.items()}
            since, row = since + 1, None
            if self.step % self.settings.logging_steps == 0 or self.step == 1:
                row = self._row(epoch, sums, since, time.monotonic() - began)
                sums, since, began = {}, 0, time.monotonic()
                self._write(row)
            self.display.step(self.step, row)

    def _step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        self.step += 1
        try:
            outputs = self.wrapped(**self.format.normalise(batch))
        except CriterionError as error:
            raise TrainingFailed(f"step {self.step}, images {_image_ids(batch['labels'])}: {error}") from error
        self.accelerator.backward(outputs.loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        if not torch.isfinite(norm):
            raise TrainingFailed(
                f"step {self.step}, images {_image_ids(batch['labels'])}: a gradient is NaN or infinite "
                f"(loss {outputs.loss.item()}); nothing of this step was applied. {self._fault()}"
            )
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return {"loss": outputs.loss.detach()} | {name: value.detach() for name, value in outputs.loss_dict.items()}

    def _fault(self) -> str:
        last = self.attached.last
        fault = find_fault(self.current, *last) if last else None
        return fault or "It arises in the model: lower the learning rate, or look at the images"

    def _row(self, epoch: int, sums: dict[str, Tensor], count: int, seconds: float) -> dict[str, Any]:
        images = count * self.settings.per_device_train_batch_size * self.accelerator.num_processes
        return {
            "step": self.step,
            "epoch": round(self.step / len(self.loader), 3),
            "learning_rate": self.schedule.get_last_lr()[-1],
            "images_per_second": round(images / seconds, 1),
            "seconds_per_step": round(seconds / count, 4),
            **{name: round(float(value) / count, 5) for name, value in sums.items()},
        }

    def _write(self, row: dict[str, Any]) -> None:
        self.log.append(row)
        if self.accelerator.is_main_process:
            self.run.log(row)


def _image_ids(labels: Sequence[dict[str, Tensor]]) -> str:
    return ", ".join(str(int(one["image_id"])) for one in labels)
