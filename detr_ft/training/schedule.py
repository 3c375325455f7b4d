"""How the learning rate goes through a run."""

from __future__ import annotations

import logging
import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import get_scheduler

from detr_ft.training.settings import TrainSettings

logger = logging.getLogger(__name__)


def build_schedule(optimizer: Optimizer, train: TrainSettings, steps: int) -> LRScheduler:
    """The schedule of a run of so many steps, `go_to` being called after each: every group goes from its own rate.

    `step` is DETR's own (Carion et al., ECCV 2020, section 4): a tenth of the rate after each of `lr_drop_epochs`.
    The others are those of transformers; here a polynomial ends at 0, as a line and a cosine do.
    """
    warmup = warmup_of(train, steps)
    if train.lr_scheduler_type == "step":
        drops = [round(epoch * steps / train.num_train_epochs) for epoch in train.lr_drop_epochs]
        return LambdaLR(optimizer, partial(_stepped, warmup=warmup, drops=drops))
    more = {"power": train.lr_power or 1.0, "lr_end": 0.0} if train.lr_scheduler_type == "polynomial" else None
    # A polynomial divides by what is left after the warm-up.
    schedule: LRScheduler = get_scheduler(train.lr_scheduler_type, optimizer, warmup, max(steps, warmup + 1), more)
    return schedule


def warmup_of(train: TrainSettings, steps: int) -> int:
    """The steps over which the rate rises; a fraction is rounded up, as `transformers.TrainingArguments` does."""
    asked = train.warmup_steps
    warmup = math.ceil(steps * asked) if asked < 1 else int(asked)
    if warmup > steps:
        logger.warning(
            "train.warmup_steps: a warm-up of %d steps in a run of %d: it is cut to the run, and the learning rate "
            "rises to its end", warmup, steps,
        )  # fmt: skip
    return min(warmup, steps)


def _stepped(done: int, warmup: int, drops: list[int]) -> float:
    """The factor of the rate after so many steps."""
    risen: float = min(1.0, done / warmup) if warmup else 1.0
    return risen * 0.1 ** sum(drop <= done for drop in drops)


def go_to(schedule: LRScheduler, step: int) -> None:
    """Put a schedule, which is a function of the step, where it is after so many of them."""
    assert isinstance(schedule, LambdaLR)
    schedule.last_epoch = step
    rates = [base * at(step) for base, at in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates
