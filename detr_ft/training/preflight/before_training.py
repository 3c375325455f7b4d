"""What `train` tries before its first step, so that a long run isn't lost to what a minute shows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from detr_ft.training.preflight.memory import fit_memory
from detr_ft.training.preflight.overfit import overfit
from detr_ft.training.trainer import DetrTrainer

logger = logging.getLogger(__name__)

_LONG = 5000  # steps, of which up to 120 more are no great part


def look_first(trainer: DetrTrainer) -> None:
    """On a GPU see that the worst batch fits; before a long run see that one batch can be learned. Nothing of the run changes.

    A batch that can't be learned is said, and no error: somebody may want to see it happen. It is tried by a single
    process, and not where a run goes on. Raises InputError where a single image is more than memory holds.
    """
    if trainer.accelerator.device.type == "cuda":
        fit_memory(trainer)
    if trainer.steps < _LONG or trainer.held.at.step > 0 or trainer.accelerator.num_processes > 1:
        return
    logger.info("trying to overfit one batch, before %d steps", trainer.steps)
    with _as_it_was(trainer.model):
        found = overfit(trainer)
    level = logging.WARNING if found.verdict == "fail" else logging.INFO
    logger.log(level, "one batch: %s: %s", found.verdict, found.reason)


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """The model has its weights back afterwards, to the bit, and no gradients."""
    kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
    try:
        yield
    finally:
        model.load_state_dict(kept)
        model.zero_grad()
