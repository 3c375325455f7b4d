"""A step of the optimizer: gradients of all its images, looked at before they are applied."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from detr_ft.criterion import CriterionError, find_fault
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.models.attach import AttachedCriterion
from detr_ft.structures import Predictions, StepTotals, Targets
from detr_ft.training.async_scalar import AsyncScalar
from detr_ft.training.ema import Ema
from detr_ft.training.forward_backward import ForwardBackward
from detr_ft.training.interrupts import agreed
from detr_ft.training.schedule import go_to
from detr_ft.training.step_loader import MicroBatch, StepBatch
from detr_ft.training.step_totals import add_up, seed_step, step_totals

logger = logging.getLogger(__name__)

_SKIPS = 20  # steps in a row that fp16 may overflow: each halves the scale, which starts at 65536


@dataclass
class StepAttempt:
    """A step, the `number`-th of the run from 1: what it holds in all, what the criterion was asked, the value of each term."""

    work: StepBatch
    number: int
    holds: StepTotals
    asked: list[tuple[Predictions, Targets]] = field(default_factory=list)
    values: dict[str, Tensor] = field(default_factory=dict)


class StepError(RuntimeError):
    """A step that can't be taken; nothing of it was applied. `share` are this process's micro-batches, or the one at fault."""

    applied = "nothing of this step was applied"

    def __init__(self, why: str, taken: StepAttempt, share: list[MicroBatch] | None = None) -> None:
        self.why, self.taken, self.share = why, taken, taken.work.share if share is None else share
        super().__init__(why)


class DivergedError(StepError):
    """A step, taken already, by which the loss has left all bounds."""

    applied = "weights are those after this step"


class FiniteCheck:
    """Whether the gradient of a step is finite, asked of the device that holds its norm. `unsound` is 1 there, or 0."""

    def __init__(self, taken: StepAttempt, norm: Tensor) -> None:
        self.taken = taken
        self.unsound = (~torch.isfinite(norm)).float()
        self._told = AsyncScalar(self.unsound)

    def sound(self) -> bool:
        """What the device answered; waits for it where it has not come so far."""
        return not self._told.value()


@dataclass
class Stepper:
    """Takes the steps of a run. `largest` is how many images go through the model at once; memory may lower it.

    Whether a gradient was finite is asked of the device, which skips the step where it was not, and read when the host waits
    for the device anyway, in the matching of the next step: so that it waits once a step.
    """

    accelerator: Accelerator
    model: Any
    passes: ForwardBackward
    optimizer: Any
    schedule: LRScheduler
    attached: AttachedCriterion
    format: ImageFormat
    seed: int
    max_grad_norm: float
    largest: int
    ema: Ema | None = None
    now: StepAttempt = field(init=False)  # the step that was begun last
    _verdict: FiniteCheck | None = None  # on the last step, as long as it has not been read
    _skipped: int = 0

    def take(self, work: StepBatch, number: int) -> dict[str, Tensor]:
        """Take a step, the `number`-th of the run from 1, and answer the value of each term over all images of it.

        Raises StepError before anything is applied where a term fails, and of the step before as `settle` does.
        """
        accelerator = self.accelerator
        holds = step_totals(work, self.model.config.num_labels, accelerator.num_processes, accelerator.device)
        self.attached.step = holds
        self.now = taken = StepAttempt(work, number, holds)
        try:
            taken.values = self._gradients(taken)
        finally:
            self.settle()  # of the step before, whatever became of this one
        skipped = self._apply(taken, accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm))
        go_to(self.schedule, number)  # the rate is a function of the step, those that fp16 skips included
        if self.ema is not None and not skipped:
            self.ema.update(number)
        self.optimizer.zero_grad()
        return taken.values

    def settle(self) -> None:
        """Raise StepError where a gradient of the last step was not finite: the optimizer took nothing of it."""
        verdict, self._verdict = self._verdict, None
        if verdict is not None and not verdict.sound():
            why = f"a gradient is NaN or infinite (loss {verdict.taken.values['loss'].item()}). {self._fault(verdict.taken)}"
            raise StepError(why, verdict.taken)

    def _apply(self, taken: StepAttempt, norm: Tensor) -> bool:
        """Let the optimizer take a gradient of this norm, unless it is not finite; answers whether fp16 skips the step."""
        verdict = self._verdict = FiniteCheck(taken, norm)
        if self.accelerator.scaler is None:
            # The device leaves all as it is where this is 1, which fused optimizers alone know of, as `build_optimizer` makes them.
            self.optimizer.optimizer.found_inf = verdict.unsound
        elif self._overflows(verdict):
            self._verdict = None
        else:
            self.settle()
        self.optimizer.step()
        self.optimizer.optimizer.found_inf = None
        return self._skipped > 0

    def _overflows(self, verdict: FiniteCheck) -> bool:
        """Whether fp16's scale of the loss was too large, as it is now and then: the scaler then skips the step and lowers it."""
        if verdict.sound():
            self._skipped = 0
            return False
        self._skipped += 1
        own = int(not verdict.taken.values["loss"].isfinite())  # of one process; the norm is that of all
        return not agreed(own, self.accelerator.num_processes, self.accelerator.device) and self._skipped <= _SKIPS

    def _gradients(self, taken: StepAttempt) -> dict[str, Tensor]:
        """Add up the gradients of this process's share, in smaller parts where memory is short."""
        work, number = taken.work, taken.number
        while True:
            parts = [part for micro in work.share for part in micro.split(self.largest)]
            seed_step(self.seed, number, self.accelerator.process_index)
            taken.asked = []
            try:
                return add_up([self._micro_step(taken, part, last=part is parts[-1]) for part in parts])
            except torch.OutOfMemoryError as error:
                shortage = str(error).partition("\n")[0]
            # Outside of `except`, whose traceback would hold the memory that is wanted.
            self._make_smaller(taken, shortage)

    def _make_smaller(self, taken: StepAttempt, shortage: str) -> None:
        """Halve what goes through the model at once. The step stays the same, since terms are normalised over the whole of it."""
        was = min(self.largest, max(len(micro.rows) for micro in taken.work.share))
        if was == 1 or self.accelerator.num_processes > 1:
            raise StepError(f"out of memory: {shortage}. {self._smaller_by_hand(was)}", taken)
        self.optimizer.zero_grad()
        torch.cuda.empty_cache()
        self.largest = was // 2
        logger.warning(
            "step %d: out of memory with %d images at once; from here on %d, with the same images a step and the same "
            "gradient (train.per_device_train_batch_size=%d train.gradient_accumulation_steps=... starts so)",
            taken.number, was, self.largest, self.largest,
        )  # fmt: skip

    def _smaller_by_hand(self, images: int) -> str:
        if images == 1:
            return "One image is too much already: a smaller data.longest_edge, or train.gradient_checkpointing=true"
        return (
            f"Of several processes none can change it by itself: --resume with train.per_device_train_batch_size={images // 2} "
            "and twice the train.gradient_accumulation_steps takes the same steps"
        )

    def _micro_step(self, taken: StepAttempt, micro: MicroBatch, last: bool) -> dict[str, Tensor]:
        """Add the gradient of a micro-batch, or nothing of one that doesn't count, and say its terms."""
        share = float(micro.counts)
        # Gradients are shared among the processes once, with those of the last micro-batch.
        with nullcontext() if last else self.accelerator.no_sync(self.passes.wrapped):
            inputs = send_to_device(micro.inputs, self.accelerator.device, non_blocking=True)
            try:
                loss, terms = self.passes.take(self.format.normalize(inputs), share)
            except torch.OutOfMemoryError:
                raise
            except CriterionError as error:
                raise StepError(str(error), taken, [micro]) from error
            except Exception as error:  # a term of the user's may raise anything, and is to be told with its images
                raise StepError(f"{type(error).__name__}: {error}", taken, [micro]) from error
        taken.asked += [self.attached.last] if self.attached.last and micro.counts else []
        return {name: share * value.detach() for name, value in {"loss": loss, **terms}.items()}

    def _fault(self, taken: StepAttempt) -> str:
        faults = (find_fault(self.attached.criterion, *one) for one in taken.asked)  # type: ignore[arg-type]
        return next(
            filter(None, faults),
            (
                "The criterion, asked again, is finite: it arises in the model (lower the learning rate, or look at the images), or in a "
                "term that does not answer the same twice"
            ),
        )


def diverged(losses: Sequence[float]) -> bool:
    """Whether the loss has left all bounds: its last three values are above twenty times the median of those before.

    Values of a log, at least a dozen; the median, since a batch without objects has next to no loss.
    """
    *before, _, _, _ = losses if len(losses) >= 12 else [0.0] * 3
    usual = statistics.median(before) if before else 0.0
    return usual > 0 and min(losses[-3:]) > 20 * usual
