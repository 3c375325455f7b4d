"""One optimizer step: the gradient of all its images, checked before the optimizer applies it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from detr_ft.criterion import CriterionError, SetCriterion, describe_exception, find_fault
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.models.attach import AttachedCriterion
from detr_ft.structures import Predictions, StepTotals, Targets
from detr_ft.training.ema import Ema
from detr_ft.training.optimizer import go_to
from detr_ft.training.settings import TrainSettings
from detr_ft.training.step_loader import MicroBatch, StepBatch
from detr_ft.training.step_totals import add_up, padded_alike, seed_step, step_totals
from detr_ft.utils.collectives import AsyncScalar, max_over_processes, sum_over_processes
from detr_ft.utils.user_code import is_interrupt

logger = logging.getLogger(__name__)

_MAX_FP16_OVERFLOWS = 20  # consecutive steps: each halves the scale of the loss, which starts at 65536


class ForwardBackward(Protocol):
    """Forward pass, criterion and backward pass. `wrapped` is the model as accelerate prepared it."""

    wrapped: Callable[..., Any]

    def run(self, inputs: Mapping[str, Any], weight: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradient of `weight` times the loss; return the loss, unweighted, and its terms."""


class EagerForwardBackward:
    """The passes operation by operation; `cuda_graphs.py` has the other implementation."""

    def __init__(self, accelerator: Accelerator, wrapped: Callable[..., Any]) -> None:
        self.wrapped = wrapped
        self._accelerator = accelerator

    def run(self, inputs: Mapping[str, Any], weight: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradient of a batch."""
        outputs = self.wrapped(**inputs)
        self._accelerator.backward(weight * outputs.loss)
        return outputs.loss, outputs.loss_dict


@dataclass
class StepAttempt:
    """The `number`-th step of a run, from 1; `scored` has the arguments of the criterion."""

    batch: StepBatch
    number: int
    totals: StepTotals
    scored: list[tuple[Predictions, Targets]] = field(default_factory=list)
    terms: dict[str, Tensor] = field(default_factory=dict)


class StepError(RuntimeError):
    """A step failed and was not applied. `micro_batches` are those at fault, or all of this process."""

    applied = "nothing of this step was applied"

    def __init__(self, reason: str, attempt: StepAttempt, micro_batches: list[MicroBatch] | None = None) -> None:
        self.reason, self.attempt = reason, attempt
        self.micro_batches = attempt.batch.micro_batches if micro_batches is None else micro_batches
        super().__init__(reason)


class UpdateError(StepError):
    """The optimizer, or the average of the weights, failed while it applied a step."""

    applied = "the weights may have a part of this step"


class AppliedStepError(StepError):
    """A failure after a step was applied: in the statistics of its matching, or in an evaluation."""

    applied = "weights are those after this step"


class DivergedError(AppliedStepError):
    """The loss diverged."""


class FiniteCheck:
    """The check that gradient, loss and terms of a step are finite, on all processes together.

    `non_finite` is 1 or 0 on the device.
    """

    def __init__(self, attempt: StepAttempt, norm: Tensor) -> None:
        self.attempt = attempt
        self._norm = norm
        self._bad_terms = ~torch.stack([*attempt.terms.values()]).isfinite().all()
        non_finite = (~torch.isfinite(norm) | self._bad_terms).float()
        self.non_finite = sum_over_processes(non_finite).clamp(max=1.0)
        self._result = AsyncScalar(self.non_finite)

    def ok(self) -> bool:
        """Return whether all are finite; blocks until the device has computed it."""
        return not self._result.value()

    def own_terms_ok(self) -> bool:
        """Return whether the terms of this process are finite; blocks like `ok`."""
        return not self._bad_terms.item()

    def __str__(self) -> str:
        """The value that is not finite, and the loss of this process."""
        bad = [name for name, value in self.attempt.terms.items() if not value.isfinite()]
        where = f"{bad[0]} is" if bad else "a term of another process is"
        if len(bad) > 1:
            where = f"{bad[0]} and {len(bad) - 1} more terms are"
        if not self._norm.isfinite():
            where = "a gradient is"
        return f"{where} NaN or infinite (loss {self.attempt.terms['loss'].item()})"


@dataclass
class Stepper:
    """Takes the optimizer steps of a run, at most `max_images` at once; less if memory is short.

    The device checks whether gradient, loss and terms are finite, and skips the step if not. The result is read in the next step,
    after the matching, which synchronizes the device anyway: a step synchronizes once. `mark` is called with the name of
    each part of a step that ends: moving, backward, optimizer.
    """

    accelerator: Accelerator
    model: Any
    forward_backward: ForwardBackward
    optimizer: Any
    schedule: LRScheduler
    criterion: SetCriterion
    attached: AttachedCriterion
    format: ImageFormat
    settings: TrainSettings
    max_images: int
    ema: Ema | None = None
    mark: Callable[[str], None] = lambda part: None
    attempt: StepAttempt = field(init=False)  # the latest
    _unread_check: FiniteCheck | None = field(init=False, default=None)  # of the previous step
    _overflows: int = field(init=False, default=0)

    @property
    def epoch_criterion(self) -> SetCriterion:
        """The criterion of the present epoch, which is attached to the model."""
        criterion: Any = self.attached.criterion
        return cast(SetCriterion, criterion)

    def start_epoch(self, epoch: int) -> None:
        """Switch the model to training mode and use the criterion of an epoch, counted from 0."""
        self.model.train()
        self.attached.criterion = self.criterion.at(epoch)

    def limit_images(self, number: int) -> None:
        """Pass at most so many images through the model at once, for the same steps with the same gradient."""
        self.max_images = number

    def step(self, batch: StepBatch, number: int) -> dict[str, Tensor]:
        """Take the `number`-th step of the run, from 1, and return the value of each term over all its images.

        Raises StepError before anything is applied if a term fails, and like `settle` for the previous step.
        """
        accelerator, batch = self.accelerator, padded_alike(batch)
        totals = step_totals(batch, self.model.config.num_labels, accelerator.num_processes, accelerator.device)
        self.attempt = attempt = StepAttempt(batch, number, totals)
        try:
            with self.attached.step_totals(totals):
                attempt.terms = self._gradients(attempt)
        finally:
            self.settle()  # the previous step, even if this one fails
        with self.named_failures(attempt):
            norm = accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
            check = FiniteCheck(attempt, norm)
        with self.named_failures(attempt, kind=UpdateError):
            skipped = self._apply(check)
            go_to(self.schedule, number)  # the rate is a function of the step, including those that fp16 skips
            if self.ema is not None and not skipped:
                self.ema.update(number)
            self.optimizer.zero_grad()
        self.mark("optimizer")
        return attempt.terms

    def named_failures(
        self, attempt: StepAttempt, micro_batches: list[MicroBatch] | None = None, kind: type[StepError] = StepError
    ) -> AbstractContextManager[None]:
        """Return a context that turns any exception into a StepError with its term, file and line.

        The user's terms may raise anything, also SystemExit; only a real Ctrl-C passes.
        """
        return _NamedFailures(self, attempt, micro_batches, kind)

    def settle(self) -> None:
        """Raise StepError if the latest step was not finite; the optimizer skipped it."""
        check, self._unread_check = self._unread_check, None
        if check is not None and not check.ok():
            raise StepError(f"{check}. {self._origin(check.attempt)}", check.attempt)

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has the average of its weights, if the run computes one."""
        return self.ema.swapped() if self.ema else nullcontext()

    def not_averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has its own weights, also within `averaged`."""
        return self.ema.suspended() if self.ema else nullcontext()

    def _gradients(self, attempt: StepAttempt) -> dict[str, Tensor]:
        """Add up the gradients of this process's micro-batches, in smaller parts if memory is short."""
        while True:
            parts = [part for micro in attempt.batch.micro_batches for part in micro.split(self.max_images)]
            seed_step(self.settings.seed, attempt.number, self.accelerator.process_index)
            attempt.scored = []
            try:
                return add_up([self._micro_step(attempt, part, last=part is parts[-1]) for part in parts])
            except StepError as error:
                if not isinstance(error.__cause__, torch.OutOfMemoryError):
                    raise
                shortage = str(error.__cause__).partition("\n")[0]
            # Outside of `except`: its traceback references the tensors that must be freed.
            self._reduce_micro_batch(attempt, shortage)

    def _micro_step(self, attempt: StepAttempt, micro: MicroBatch, last: bool) -> dict[str, Tensor]:
        """Add the gradient of a micro-batch and return its terms; both are 0 for a placeholder."""
        weight = float(micro.counts)
        # Processes average their gradients once, with those of the last micro-batch.
        accumulating = nullcontext() if last else self.accelerator.no_sync(self.forward_backward.wrapped)
        with self.named_failures(attempt, [micro]), accumulating:
            inputs = send_to_device(micro.inputs, self.accelerator.device, non_blocking=True)
            inputs = self.format.normalize(inputs)
            self.mark("moving")
            loss, terms = self.forward_backward.run(inputs, weight)
            self.mark("backward")
            attempt.scored += [self.attached.last] if self.attached.last and micro.counts else []
            return {name: weight * value.detach() for name, value in {"loss": loss, **terms}.items()}

    def _apply(self, check: FiniteCheck) -> bool:
        """Apply the gradient, unless it is not finite; return whether fp16 skips the step."""
        self._unread_check = check
        if self.accelerator.scaler is None:
            # Fused optimizers change nothing where this is 1, without synchronization; see `build_optimizer`.
            self.optimizer.optimizer.found_inf = check.non_finite
        elif self._overflowed(check):
            self._unread_check = None
        else:
            self.settle()
        self.optimizer.step()
        self.optimizer.optimizer.found_inf = None
        return self._overflows > 0

    def _overflowed(self, check: FiniteCheck) -> bool:
        """Return whether the fp16 scale of the loss was too large; the scaler skips the step and lowers it."""
        if check.ok():
            self._overflows = 0
            return False
        self._overflows += 1
        own = int(not check.own_terms_ok())  # of this process; the norm is of all
        return not max_over_processes(own, self.accelerator.device) and self._overflows <= _MAX_FP16_OVERFLOWS

    def _reduce_micro_batch(self, attempt: StepAttempt, shortage: str) -> None:
        """Halve the micro-batch. The gradient stays the same, since terms are normalized by the whole step."""
        images = min(self.max_images, max(len(micro.rows) for micro in attempt.batch.micro_batches))
        if images == 1 or self.accelerator.num_processes > 1:
            several = f"--resume with train.per_device_train_batch_size={images // 2} and twice the train.gradient_accumulation_steps"
            single = "A single image does not fit: use a smaller data.longest_edge or train.gradient_checkpointing=true"
            raise StepError(f"out of memory: {shortage}. {single if images == 1 else several}", attempt)
        self.optimizer.zero_grad()
        torch.cuda.empty_cache()
        self.limit_images(images // 2)
        logger.warning(
            "step %d: out of memory with %d images at once; from here on %d, with the same images a step and the same "
            "gradient (train.per_device_train_batch_size=%d with more train.gradient_accumulation_steps starts so)",
            attempt.number, images, self.max_images, self.max_images,
        )  # fmt: skip

    def _origin(self, attempt: StepAttempt) -> str:
        """Return the term that is not finite, if the criterion shows it when called again."""
        try:
            faults = [find_fault(self.epoch_criterion, *arguments) for arguments in attempt.scored]
        except BaseException as error:
            if is_interrupt(error):
                raise
            return f"Called again, the criterion fails: {describe_exception(error, self.epoch_criterion)}"
        return next(
            filter(None, faults),
            "The criterion is finite when called again: the model causes it (lower the learning rate, or inspect the images), "
            "or a term that does not return the same value twice",
        )


@dataclass(frozen=True)
class _NamedFailures(AbstractContextManager[None]):
    """The context of `named_failures`. One made by `contextmanager` would let StopIteration pass."""

    stepper: Stepper
    attempt: StepAttempt
    micro_batches: list[MicroBatch] | None
    kind: type[StepError]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None or isinstance(error, StepError) or is_interrupt(error):
            return
        is_plain = isinstance(error, CriterionError)
        reason = str(error) if is_plain else describe_exception(error, self.stepper.epoch_criterion)
        raise self.kind(reason, self.attempt, self.micro_batches) from error
