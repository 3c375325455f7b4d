"""The training loop: epochs of steps, evaluations and checkpoints. `step.py` has the step itself."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel

from detr_ft.criterion import SetCriterion
from detr_ft.data.pipeline.dataset import TrainTransform
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.schema import class_names
from detr_ft.errors import Interrupted
from detr_ft.evaluation.metrics import TrainingEnd
from detr_ft.models.attach import attach_criterion
from detr_ft.models.label_map import check_classes
from detr_ft.models.save import save_model, save_model_folder
from detr_ft.run_directory import BEST_CHECKPOINT, FAILURES, RAW, RunDirectory
from detr_ft.training.callbacks import Callback, Callbacks, TrainResult
from detr_ft.training.checkpoint.best import check_best, load_best, state_of
from detr_ft.training.checkpoint.state import Progress, TrainingState
from detr_ft.training.checkpoint.store import Checkpoints
from detr_ft.training.failures.capsule import record_failure
from detr_ft.training.launch import exclusive, join, on_main_process
from detr_ft.training.monitor.display import Display, make_display
from detr_ft.training.monitor.evaluator import Evaluation
from detr_ft.training.optimizer import check_rates, training_table
from detr_ft.training.settings import OptimSettings, TrainSettings
from detr_ft.training.setup import build_loader, build_monitor, build_stepper, prepare_model, seed_everything
from detr_ft.training.step import StepError
from detr_ft.training.step_loader import StepBatch
from detr_ft.training.stopping import TIME_IS_OVER, ModelSelection, StopRequests, better_than_last, check_divergence

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_CHECKPOINTS = 60.0  # at least, between those at the ends of epochs


class TrainingError(RuntimeError):
    """A run ended because a step failed. Names its number, its images and its capsule."""


class DetrTrainer:
    """Trains a DETR with a criterion, on data sets in the schema, through accelerate.

    Only stores its arguments: `setup`, which `train` and `evaluate` call, has the effects. The parameters that require a
    gradient are trained. A step has `per_device_train_batch_size` images times `gradient_accumulation_steps` times the
    number of processes, and is the same however these divide it. `transform` makes the examples; by default as the
    processor does, without augmentation. `repeats` has for each image the number of its repetitions in an epoch. All files
    go to `settings.output_dir`. With a `checkpoint` of that run it is resumed, bit for bit. `facts` are stored in
    checkpoints to describe the run. `pretrained_fraction` of the weights came from a checkpoint, for the diagnosis of a
    model that detects nothing. `callbacks` are called at steps, evaluations and saves.
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
        pretrained_fraction: float | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.model, self.processor, self.criterion = model, processor, criterion
        self.train_dataset, self.eval_dataset, self.repeats = train_dataset, eval_dataset, repeats
        self.settings, self.optim, self.transform = settings, optim or OptimSettings(), transform
        self.checkpoint, self.facts, self.pretrained_fraction = checkpoint, facts or {}, pretrained_fraction
        self.display, self.callbacks = display or make_display(), Callbacks(callbacks, self._newest_checkpoint)
        self.selection = ModelSelection(
            settings.metric_for_best_model, settings.early_stopping_threshold, settings.early_stopping_patience
        )
        self._is_set_up = False

    def train(self) -> TrainResult:
        """Train until epochs, time or patience are over; evaluate, and save the model in the run directory.

        On SIGINT or SIGTERM all processes finish the step, write a checkpoint and raise Interrupted. Raises TrainingError if
        a step fails, CallbackError if a callback does, and like `setup`.
        """
        self.setup()
        with exclusive(self.run.path):
            return self._run()

    def _run(self) -> TrainResult:
        self.stop_requests.clock.start(self.progress.seconds)
        self.stop_requests.clock.record_evaluation(self.progress.evaluation_seconds)
        logger.info("trained parts of the model:\n%s", training_table(self.model, self.stepper.optimizer))
        self.monitor.start(self.progress.step, self.stop_requests.clock.left)
        try:
            with self.stop_requests.signals:
                result = self._finish(self._train())
                for _ in range(2):  # of several processes, each knows after the second call what the others received
                    self._stop_requested()
        finally:
            self.monitor.stop()
        if self.accelerator.is_main_process:
            self.callbacks.on_end(result)
        return result

    def _train(self) -> Evaluation | None:
        """Take the remaining steps; return the evaluation after the last of them, if one was due."""
        epoch = None
        evaluation = self._evaluate_if_due()
        with closing(self._batches()) as batches:
            for batch in self.monitor.timer.timed(batches):
                if self._stop_requested() or self.selection.out_of_patience(self.monitor.log.evaluations):
                    break
                if batch.epoch != epoch:
                    epoch = batch.epoch
                    self._settle()
                    self.stepper.start_epoch(epoch)
                self._log(batch, self._step(batch))
                self._save_if_due()
                evaluation = self._evaluate_if_due()
        self.save_checkpoint()
        return evaluation

    def _batches(self) -> Generator[StepBatch, None, None]:
        """Yield the remaining batches. If one cannot be read, a failure of the previous step is raised first.

        A signal during the wait for a batch ends the run there: the resumed run reads the same batch.
        """
        with closing(self.loader.steps(self.progress.epoch, self.progress.index)) as batches:
            while True:
                try:
                    with self.stop_requests.interrupting():
                        batch = next(batches, None)
                except Interrupted:
                    self._stop_requested()
                    raise
                except Exception:
                    self._settle()
                    raise
                if batch is None:
                    return
                yield batch

    def _step(self, batch: StepBatch) -> dict[str, Tensor]:
        with self._recorded_failures():
            terms = self.stepper.step(batch, self.progress.step + 1)
        self.progress.advance(batch, self.loader.steps_per_epoch)
        return terms

    def _settle(self) -> None:
        """Raise TrainingError if the latest step failed, before anything that follows from it is written."""
        with self._recorded_failures():
            self.stepper.settle()

    @contextmanager
    def _recorded_failures(self) -> Iterator[None]:
        """Write the capsule of a failed step, and raise TrainingError."""
        try:
            yield
        except StepError as failure:
            folder, split = self.run.path / FAILURES, self.loader.examples.split
            message = record_failure(folder, failure, self.stepper, self.processor, split, self.facts)
            raise TrainingError(message) from failure

    def _log(self, batch: StepBatch, terms: dict[str, Tensor]) -> None:
        log, step, row = self.monitor.log, self.progress.step, None
        log.interval.add(batch.images, terms)
        if self.monitor.logs(step):
            self._settle()
            with self._recorded_failures():
                row = self.monitor.log_step(step)
                check_divergence(log.losses, self.stepper.attempt)
        self.monitor.after_step(batch, step, terms, row, self.stop_requests.clock.left)

    def _evaluate_if_due(self) -> Evaluation | None:
        """Evaluate every `eval_epochs` epochs, and after the last."""
        progress, settings = self.progress, self.settings
        if progress.index != 0 or progress.epoch == 0 or progress.evaluated == progress.step:
            return None
        due = settings.eval_epochs and progress.epoch % settings.eval_epochs == 0
        if not due and progress.epoch < settings.num_train_epochs:
            return None
        if settings.load_best_model_at_end:
            self.save_checkpoint()  # a run resumed from an earlier step would miss a best model that is replaced now
        return self.evaluate()

    def evaluate(self) -> Evaluation:
        """Evaluate the present weights, or their average if the run computes one, and write a row of the log.

        The row also has the main metrics of the raw weights if averaged ones are evaluated. Without an evaluation split
        nothing is done and the result is empty.
        """
        self.setup()
        if self.eval_dataset is None:
            return Evaluation({}, [])
        self._settle()
        started_at, progress = time.monotonic(), self.progress
        raw = self.monitor.measure(self._stop_requested).metrics if self.stepper.ema else {}
        with self.stepper.averaged():
            evaluation = self.monitor.measure(self._stop_requested)
            with self._recorded_failures():
                self.monitor.log_evaluation(progress.step, progress.epoch, evaluation.metrics, raw)
            progress.record_evaluation(time.monotonic() - started_at)
            self.stop_requests.clock.record_evaluation(progress.evaluation_seconds)
            best = self.selection.best(self.monitor.log.evaluations)
            if best is not None and best.step == progress.step:
                self._save_folder(BEST_CHECKPOINT)
            self.callbacks.on_evaluate(self.model, progress.step, *evaluation)
        return evaluation

    def _finish(self, evaluation: Evaluation | None) -> TrainResult:
        """Save the last model, or the best if it is to be restored, and return its evaluation."""
        if evaluation is None:
            evaluation = self._evaluate_last()
        best, better = self.selection.best(self.monitor.log.evaluations), ""
        if best is None or best.step == self.progress.step:
            self.save()
        elif not self.settings.load_best_model_at_end:
            better = better_than_last(best, self.selection.metric, evaluation.metrics)
            self.save()
        else:
            logger.info("restoring the model of the best evaluation, at step %d", best.step)
            load_best(self.model, self.run, best.step)
            if self.stepper.ema:
                self.stepper.ema.restart()  # the saved weights are averages already
            evaluation = self.monitor.measure(self._stop_requested)
            self._save_model()
        end = self._end(evaluation)
        return TrainResult(*evaluation, self.monitor.log.read(), self.stop_requests.clock.seconds, better, end)

    def _evaluate_last(self) -> Evaluation:
        """Evaluate after the last step. The log of a resumed run may have this evaluation already."""
        written = self.monitor.log.evaluations[-1:]
        if not written or written[0]["step"] != self.progress.step:
            return self.evaluate()
        with self.stepper.averaged():
            return self.monitor.measure(self._stop_requested)

    def _end(self, evaluation: Evaluation) -> TrainingEnd:
        """Return how the run ended, with the diagnosis of the model that it saved."""
        progress, planned = self.progress, self.settings.num_train_epochs
        stopped_by: Literal["", "time limit", "early stopping"] = ""
        if progress.step < self.loader.total_steps:
            stopped_by = "time limit" if self.stop_requests.clock.over else "early stopping"
        epochs = round(progress.epoch + progress.index / self.loader.steps_per_epoch, 1)
        diagnosis = self.monitor.diagnosis(evaluation.metrics, progress.step)
        return TrainingEnd(epochs, planned, stopped_by, diagnosis)

    def _stop_requested(self) -> bool:
        """Return whether the time limit is reached; after a signal write a checkpoint and raise Interrupted."""
        request = self.stop_requests.current()
        if request in (0, TIME_IS_OVER):
            return request == TIME_IS_OVER
        self.save_checkpoint()
        self.accelerator.wait_for_everyone()  # a process that ends first would end the others, also the one that writes
        step, name = self.progress.step, signal.Signals(request).name
        folder, epochs = self.checkpoints.folder_of(step), self.progress.epoch
        logger.warning(
            "%s: stopped after %d of %d epochs, step %d of %d, saved in %s",
            name, epochs, self.settings.num_train_epochs, step, self.loader.total_steps, folder,
        )  # fmt: skip
        raise Interrupted(request)

    def _save_if_due(self) -> None:
        """Write a checkpoint every `save_steps` steps, by default at ends of epochs, and after the last."""
        every, step = self.settings.save_steps, self.progress.step
        is_old = time.monotonic() - self.state.saved_at > _SECONDS_BETWEEN_CHECKPOINTS
        due = step % every == 0 if every else self.progress.index == 0 and is_old
        if due or step == self.loader.total_steps:
            self.save_checkpoint()

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the present step, unless there is one."""
        self.setup()
        self._settle()
        step = self.progress.step
        if self.state.saved_step == step:
            return
        if self.accelerator.is_main_process:  # all processes have the same state
            with self.stepper.not_averaged():  # a signal may arrive in the evaluation of averaged weights
                files = self.state.files(self.facts, self.stop_requests.clock.seconds)
            self.callbacks.on_save(self.checkpoints.save(step, files), step)
        self.state.mark_saved()

    def save(self) -> None:
        """Save the model at the top of the run; if weights are averaged, also the raw ones."""
        if self.stepper.ema:
            self._save_folder(RAW)
        with self.stepper.averaged():
            self._save_model()

    def _save_model(self) -> None:
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.callbacks.on_save(save_model(self.run, self.model, self.processor), self.progress.step)

    def _save_folder(self, name: str) -> None:
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            folder, step = self.run.path / name, self.progress.step
            self.callbacks.on_save(save_model_folder(folder, self.model, self.processor, state_of(step)), step)

    def _newest_checkpoint(self) -> Path | None:
        return self.checkpoints.newest()

    @property
    def progress(self) -> Progress:
        """The position of the run."""
        return self.state.progress

    def setup(self) -> None:
        """Join the processes of the run, create its folder, and prepare model, data and optimizer; once.

        Afterwards the trainer has its `accelerator`, `run` directory, `loader`, `stepper`, `monitor`, `state`, `checkpoints`
        and `stop_requests`. Raises InputError if the folder has another run, for settings that this machine does not
        support, for a model whose classes are not those of the data, and for a checkpoint of another model.
        """
        if self._is_set_up:
            return
        settings, checkpoint = self.settings, self.checkpoint
        check_rates(self.model, self.optim)
        for split in (self.train_dataset, self.eval_dataset):
            if split is not None:
                check_classes(self.model, class_names(split))
        attached = attach_criterion(self.model, self.criterion)
        accelerator = self.accelerator = join(settings.mixed_precision, settings.report_to, settings.output_dir)
        seed_everything(settings)
        self.run = RunDirectory(settings.output_dir)
        self.checkpoints = Checkpoints(self.run.checkpoints, settings.save_total_limit)
        with exclusive(self.run.path):
            on_main_process(self.run.create if checkpoint is None else self.checkpoints.remove_partial)
        if checkpoint is not None:
            check_best(self.run, checkpoint, settings)
        prepare_model(self.model, checkpoint)
        transform = self.transform or TrainTransform(ImageFormat.of(self.processor))
        self.loader = build_loader(accelerator, self.train_dataset, transform, settings, self.repeats)
        self.stepper = build_stepper(
            accelerator, self.model, attached, self.criterion, transform.format, settings, self.optim,
            self.loader.total_steps,
        )  # fmt: skip
        self.monitor = build_monitor(
            self.stepper, self.loader, self.processor, self.eval_dataset, self.run, self.display, self.callbacks,
            self.pretrained_fraction,
        )  # fmt: skip
        progress = Progress(images_per_step=self.loader.batches.batch_size)
        sample = self.monitor.evaluator.sample
        self.state = TrainingState(self.stepper, self.processor, self.monitor.log, sample, progress)
        if checkpoint is not None:
            self.state.restore(checkpoint)
        self.stop_requests = StopRequests(settings.max_minutes, accelerator.device)
        self._is_set_up = True
