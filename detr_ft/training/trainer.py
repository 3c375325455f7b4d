"""The training loop: a page for a step, one for an epoch, one for evaluation."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, enable_full_determinism

from detr_ft.criterion import SetCriterion
from detr_ft.data.pipeline.dataset import TrainDataset, TrainTransform
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.pipeline.sampling import BatchSampler, aspect_ratios
from detr_ft.errors import Interrupted
from detr_ft.evaluation.metrics import MAIN_METRICS
from detr_ft.models.attach import attach_criterion
from detr_ft.models.optimizations import fused_norms, memory, no_sync
from detr_ft.models.save import save_model
from detr_ft.run_directory import BEST_CHECKPOINT, FAILURES, RAW, RunDirectory
from detr_ft.structures import Detections
from detr_ft.training.checkpoint.state import Progress, load_saved, load_weights
from detr_ft.training.checkpoint.store import Checkpoints
from detr_ft.training.checkpoint.training_state import TrainingState
from detr_ft.training.cuda_graphs import passes_of
from detr_ft.training.early_stopping import Best, Clock, best_of, better_than_last
from detr_ft.training.ema import Ema
from detr_ft.training.failures.capsule import keep_failure
from detr_ft.training.interrupts import SharedFlag, Signals
from detr_ft.training.launch import join
from detr_ft.training.monitor.display import Display, make_display
from detr_ft.training.monitor.eta import Pace
from detr_ft.training.monitor.evaluator import Evaluated, Evaluator
from detr_ft.training.monitor.matching_stats import figures, tally
from detr_ft.training.monitor.training_log import Sums, TrainLog
from detr_ft.training.optimizer import build_optimizer, logged_rates, training_table
from detr_ft.training.schedule import build_schedule
from detr_ft.training.settings import OptimSettings, TrainSettings
from detr_ft.training.step import DivergedError, StepError, Stepper, diverged
from detr_ft.training.step_loader import StepBatch, StepLoader

logger = logging.getLogger(__name__)

_LOST = 10  # epochs after which, again and again, a model that finds nothing is looked into
_OVER = 1  # what processes agree on, where it is no signal: the time is over
_EVERY = 60.0  # seconds: an epoch's end is saved once the last checkpoint is as old


class TrainingError(RuntimeError):
    """A step that can't be taken: the loss or a gradient is not finite, or a term failed. Says at which step and image."""


@dataclass(frozen=True)
class TrainResult:
    """What training gave: the last evaluation, its detections (in the order of the split), the log and the time it took."""

    metrics: dict[str, Any]
    detections: list[Detections]
    log: list[dict[str, Any]]
    seconds: float
    better: str  # than the model that was saved: what to say of an earlier one, or nothing


class DetrTrainer:
    """Trains a DetrForObjectDetection by a criterion, on data sets in the schema, through accelerate.

    The parameters that require a gradient are trained. A step is that of `per_device_train_batch_size` images times
    `gradient_accumulation_steps` times the processes, and is the same however these share it out. `transform` makes
    examples, left out: as the processor does, without augmentation. `repeats` says how often each image comes in an epoch.
    Everything is written into `settings.output_dir`, which is made here: raises InputError where it holds something
    already, unless `checkpoint` is one of that run, which then goes on from it, bit for bit. `facts` are what a checkpoint
    is to tell of the run that wrote it, and `loaded` is the share of the model's weights that came from a checkpoint: it
    is told where nothing is found.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        criterion: SetCriterion,
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
        settings: TrainSettings,
        *,
        processor: Any,
        transform: TrainTransform | None = None,
        optim: OptimSettings | None = None,
        display: Display | None = None,
        repeats: Sequence[float] | None = None,
        checkpoint: Path | None = None,
        facts: Mapping[str, Any] | None = None,
        loaded: float | None = None,
    ) -> None:
        self.settings, self.processor, self.facts = settings, processor, facts or {}
        self.display = display or make_display()
        self.attached = attach_criterion(model, criterion)
        self.accelerator = join(settings.mixed_precision, settings.report_to, settings.output_dir)
        _make_deterministic(settings)
        self.run = RunDirectory(settings.output_dir)
        self.checkpoints = Checkpoints(self.run.checkpoints, settings.save_total_limit)
        if self.accelerator.is_main_process:
            self.run.create() if checkpoint is None else self.checkpoints.remove_partial()
        if checkpoint is not None:
            load_weights(model, checkpoint)
        fused_norms.apply(model)
        no_sync.apply(model)
        # Convolutions are faster with the channels of a pixel side by side, on CPUs and on GPUs with tensor cores.
        self.model = model.to(memory_format=torch.channels_last)
        self.criterion = self.current = criterion
        transform = transform or TrainTransform(ImageFormat.of(processor))
        self.format = transform.format
        self.examples = TrainDataset(train_dataset, transform, settings.seed)
        self.feed = self._feed(repeats)
        self.steps_an_epoch = len(self.feed.batches)
        self.steps = settings.num_train_epochs * self.steps_an_epoch
        optimizer = build_optimizer(model, settings, optim or OptimSettings())
        memory.apply(model, settings.gradient_checkpointing, settings.torch_compile)
        self.wrapped, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.examiner = Evaluator(
            self.accelerator, self.model, processor, self.optimizer, train_dataset, eval_dataset,
            settings.per_device_eval_batch_size, loaded,
        )  # fmt: skip
        self.held = TrainingState(
            self.accelerator,
            self.model,
            processor,
            self.optimizer,
            # Not given to `prepare`, which would step it once for every process.
            build_schedule(optimizer, settings, self.steps),
            Ema(model, settings.ema_decay) if settings.ema_decay else None,
            TrainLog(self.run, self.accelerator.is_main_process),
            self.examiner.sample,
            Progress(images_a_step=self._images_a_step),
        )
        passes = passes_of(self.accelerator, self.model, self.wrapped, self.attached, settings)
        self.stepper = Stepper(
            self.accelerator, self.model, passes, self.optimizer, self.held.schedule, self.attached, self.format,
            settings.seed, settings.max_grad_norm, settings.per_device_train_batch_size, self.held.ema,
        )  # fmt: skip
        self.signals, self.clock = Signals(), Clock(settings.max_minutes)
        self.agreement = SharedFlag(self.accelerator.num_processes, self.accelerator.device)
        self.better = ""
        self.saved, self.saved_at = -1, time.monotonic()  # the step of the last checkpoint, and when that was
        if checkpoint is not None:
            self.held.restore(checkpoint)
            self.saved = self.held.at.step

    def train(self) -> TrainResult:
        """Train all epochs, or until the time or the patience is over; evaluate, save at the top of the run directory.

        On SIGINT or SIGTERM the step is finished and a checkpoint written, and Interrupted raised, on all processes.
        """
        self.clock.start(self.held.at.seconds)
        logger.info("what trains:\n%s", training_table(self.model, self.optimizer))
        self.accelerator.init_trackers("detr_ft")
        self.display.start(self.steps, self.held.at.step, self.clock.left)
        try:
            with self.signals:
                evaluated = self._train()
                metrics, found = self._at_its_best(evaluated)
                self.save()
        finally:
            self.display.stop()
            for tracker in self.accelerator.trackers:
                tracker.finish()
        return TrainResult(metrics, found, self.held.log.read(), self.clock.seconds, self.better)

    def _train(self) -> Evaluated | None:
        """Take the steps that are left, and answer the evaluation after the last of them, if it was its turn."""
        at, pace = self.held.at, Pace()
        evaluated = self._evaluate_if_due()
        for number, work in enumerate(pace.timed(self._fed())):
            if self._look_up() or self._out_of_patience():
                break
            if number == 0 or work.place == 0:
                self._begin(work.epoch)
            self._log(work, self._step(work))
            at.seconds = self.clock.seconds
            told = pace.step(sum(len(micro.rows) for micro in work.share), self.steps - at.step, self.clock.left)
            if told:
                logger.info(told)
            self._save_if_due()
            evaluated = self._evaluate_if_due()
        self.save_checkpoint()
        return evaluated

    def _fed(self) -> Iterator[StepBatch]:
        """The steps that are left. Where no more can be read, the last one's own failure is told first."""
        at = self.held.at
        try:
            yield from self.feed.steps(at.epoch, at.place)
        except Exception:
            self._settle()
            raise

    def _begin(self, epoch: int) -> None:
        self._settle()
        self.model.train()
        self.attached.criterion = self.current = self.criterion.at(epoch)

    def _step(self, work: StepBatch) -> dict[str, Tensor]:
        at = self.held.at
        with self._failures_told():
            values = self.stepper.take(work, at.step + 1)
        ends = work.place + 1 == self.steps_an_epoch
        at.step, at.epoch, at.place = at.step + 1, work.epoch + ends, 0 if ends else work.place + 1
        return values

    def _settle(self) -> None:
        """See that the last step could be taken, before anything is written that follows from it."""
        with self._failures_told():
            self.stepper.settle()

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        """A step that can't be taken ends the run, with a capsule to look into it."""
        try:
            yield
        except StepError as failed:
            told = keep_failure(
                self.run.path / FAILURES, failed, self.stepper, self.processor, self.current, self.examples.split, self.facts
            )  # fmt: skip
            raise TrainingError(told) from failed

    def _log(self, work: StepBatch, values: dict[str, Tensor]) -> None:
        log, step, row = self.held.log, self.held.at.step, None
        log.since.add(work.images, values)
        if step % self.settings.logging_steps == 0 or step == 1:
            self._settle()
            row = {
                "step": step,
                "epoch": round(step / self.steps_an_epoch, 3),
                **logged_rates(self.optimizer),
                **log.since.means(self.accelerator.num_processes),
                **self._health(),
            }
            log.since = Sums()
            self._write(row)
            if diverged(log.losses):
                why = f"the loss has diverged: {log.losses[-1]:.3g}, and it was {min(log.losses):.3g}; lower the learning rate"
                with self._failures_told():
                    raise DivergedError(why, self.stepper.now)
        self.display.step(step, row)

    def _health(self) -> dict[str, float]:
        """Figures of the matching in this step."""
        tallies = [tally(self.current, *one) for one in self.stepper.now.asked]
        return figures(tallies, self.accelerator.num_processes)

    def evaluate(self, epoch: int) -> Evaluated:
        """COCO figures and detections on the evaluation split; also a row of the log. Nothing where there is no split.

        Of averaged weights, where there are; the row then has the headline figures of the raw ones beside them.
        """
        if self.examiner.eval_dataset is None:
            return {}, []
        self._settle()
        began, at = time.monotonic(), self.held.at
        raw = self._figures()[0] if self.held.ema else {}
        with self._averaged():
            metrics, found = self._figures()
            row = {"step": at.step, "epoch": epoch}
            row |= {name: value for name, value in metrics.items() if name != "per_class"}
            row |= {f"raw_{name}": raw[name] for name in MAIN_METRICS if raw}
            row |= self._remarks(metrics, epoch)
            self._write(row)
            self.display.evaluation(row)
            at.evaluated, self.clock.evaluation = at.step, time.monotonic() - began
            best = self._best()
            if best is not None and best.step == at.step:
                self._save_model(BEST_CHECKPOINT)
        return metrics, found

    def _remarks(self, metrics: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        """Figures of the matching on the same images at every evaluation, and what there is to say of them."""
        step, log = self.held.at.step, self.held.log
        looked = self.examiner.look(self.current, log.last_step, step / self.steps)
        if step and (epoch % _LOST == 0 or epoch >= self.settings.num_train_epochs):
            looked["remarks"] = [*looked.get("remarks", []), *self.examiner.diagnosis(metrics, log, step)]
        return looked

    def _figures(self) -> Evaluated:
        return self.examiner.figures(self.display.evaluating, self._look_up)

    def _averaged(self) -> AbstractContextManager[None]:
        return self.held.ema.swapped() if self.held.ema else nullcontext()

    def _at_its_best(self, evaluated: Evaluated | None) -> Evaluated:
        """The figures of the model as it is saved: after the last step, or of the best evaluation, which it then holds again."""
        if evaluated is None:
            evaluated = self.evaluate(self.held.at.epoch)
        best = self._best()
        if best is None or best.step == self.held.at.step:
            return evaluated
        if not self.settings.load_best_model_at_end:
            self.better = better_than_last(best, self.settings.metric_for_best_model, evaluated[0])
            return evaluated
        load_saved(self.model, self.run.path / BEST_CHECKPOINT)
        self.held.ema = None  # what was saved is the average
        logger.info("the best evaluation was at step %d: the model is that one", best.step)
        return self._figures()

    def _best(self) -> Best | None:
        settings = self.settings
        return best_of(self.held.log.evaluations, settings.metric_for_best_model, settings.early_stopping_threshold)

    def _out_of_patience(self) -> bool:
        best, patience = self._best(), self.settings.early_stopping_patience
        if best is None or patience is None or best.since < patience:
            return False
        logger.info("no evaluation of the last %d was better than that of step %d: training ends", patience, best.step)
        return True

    def save(self) -> None:
        """Save model and processor, as stock transformers loads them, at the top of the run; raw weights beside averages."""
        if self.held.ema:
            self._save_model(RAW)
        with self._averaged():
            self._save_model("")

    def _save_model(self, folder: str) -> None:
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            save_model(self.run, self.model, self.processor, folder)

    def save_checkpoint(self) -> None:
        """Write a checkpoint of where the run is, unless there is one."""
        self._settle()
        step = self.held.at.step
        if self.saved == step:
            return
        if self.accelerator.is_main_process:  # every process holds the same
            self.checkpoints.save(step, self.held.files(self.facts))
        self.saved, self.saved_at = step, time.monotonic()

    def _look_up(self) -> bool:
        """Save and end where a process was asked to end; else answer whether the time is over."""
        wish = self.agreement.ask(self.signals.received or int(self.clock.over))
        if wish in (0, _OVER):
            return wish == _OVER
        self.save_checkpoint()
        self.accelerator.wait_for_everyone()  # nobody ends, and ends the others, before the checkpoint is whole
        step = self.held.at.step
        logger.warning(
            "%s: stopped after step %d of %d, which is saved in %s",
            signal.Signals(wish).name, step, self.steps, self.checkpoints.folder / f"step-{step}",
        )  # fmt: skip
        raise Interrupted(wish)

    def _save_if_due(self) -> None:
        every, at = self.settings.save_steps, self.held.at
        old = time.monotonic() - self.saved_at > _EVERY
        if at.step == self.steps or (at.step % every == 0 if every else at.place == 0 and old):
            self.save_checkpoint()

    def _evaluate_if_due(self) -> Evaluated | None:
        """Evaluate at the end of an epoch whose turn it is, and of the last one."""
        at, every, epochs = self.held.at, self.settings.eval_epochs, self.held.at.epoch
        due = at.place == 0 and epochs > 0 and at.evaluated != at.step
        if due and (epochs >= self.settings.num_train_epochs or (every and epochs % every == 0)):
            return self.evaluate(epochs)
        return None

    def _write(self, row: dict[str, Any]) -> None:
        self.held.log.write(row)
        if self.accelerator.trackers:
            numbers = {name: value for name, value in row.items() if isinstance(value, (int, float))}
            self.accelerator.log(numbers, step=self.held.at.step)

    @property
    def _images_a_step(self) -> int:
        processes: int = self.accelerator.num_processes
        return self.settings.per_device_train_batch_size * self.settings.gradient_accumulation_steps * processes

    def _feed(self, repeats: Sequence[float] | None) -> StepLoader:
        settings, canvas = self.settings, self.format.canvas
        split = self.examples.split
        # Each shape of batch is recorded, or compiled, by itself.
        few_shapes = settings.torch_compile or (settings.cuda_graphs and self.accelerator.device.type == "cuda")
        shapes = None if canvas else aspect_ratios(split)
        return StepLoader(
            self.examples,
            BatchSampler(len(split), self._images_a_step, settings.seed, aspect_ratios=shapes, repeats=repeats),
            settings.num_train_epochs,
            settings.per_device_train_batch_size,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            settings.dataloader_num_workers,
            canvas,
            self.format.rounding if few_shapes else 1,
        )


def _make_deterministic(settings: TrainSettings) -> None:
    if settings.full_determinism:
        enable_full_determinism(settings.seed)
    else:
        set_seed(settings.seed)
