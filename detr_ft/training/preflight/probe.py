"""A look at a run before it is long: can it learn a batch, how fast is a step and where does its time go, does the worst fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import send_to_device

from detr_ft.criterion.matchers import MatcherSchedule
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.structures import Matches, Predictions, Targets
from detr_ft.training.forward_backward import EagerForwardBackward
from detr_ft.training.preflight.memory import Worst, try_worst
from detr_ft.training.preflight.overfit import Overfit, overfit
from detr_ft.training.trainer import DetrTrainer
from detr_ft.utils.environment import device_time

logger = logging.getLogger(__name__)

PARTS = ("reading", "moving", "forward", "matching", "loss", "backward", "optimizer")
_STEPS, _WARM = 20, 2


@dataclass(frozen=True)
class Probe:
    """What a probe found; `parts` are seconds a step, taken apart. `replayed` says that training replays steps as CUDA graphs."""

    overfit: Overfit
    worst: Worst
    images_per_second: float
    seconds_per_step: float
    steps: int
    parts: Mapping[str, float]
    replayed: bool

    @property
    def hours(self) -> float:
        """How long the steps of the run will take."""
        return self.steps * self.seconds_per_step / 3600


def probe(trainer: DetrTrainer) -> Probe:
    """Try a run out: its trainer is used up, since the model is trained on one batch. Runs on one process alone."""
    worst = try_worst(trainer, trainer.stepper.largest)
    learned = overfit(trainer)
    parts, images = _time_steps(trainer)
    seconds = sum(parts.values())
    return Probe(
        overfit=learned,
        worst=worst,
        images_per_second=images / seconds,
        seconds_per_step=seconds,
        steps=trainer.steps,
        parts=parts,
        replayed=not isinstance(trainer.stepper.passes, EagerForwardBackward),
    )


@dataclass
class _Clock:
    """Seconds by part; a GPU is waited for at each reading."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _since: float = 0.0

    def start(self) -> None:
        self._since = device_time(self.device)

    def ends(self, part: str) -> None:
        now = device_time(self.device)
        self.seconds[part] += now - self._since
        self._since = now


@dataclass(frozen=True)
class _TimedMatcher:
    """A matcher whose beginning and end are noted."""

    matcher: Any
    clock: _Clock

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        self.clock.ends("forward")
        matches: Matches = self.matcher(predictions, targets)
        self.clock.ends("matching")
        return matches


def _time_steps(trainer: DetrTrainer) -> tuple[dict[str, float], float]:
    """Mean seconds of a step by part, and mean images of a step, over some of the first steps; the model trains in them."""
    clock, images, steps = _Clock(trainer.accelerator.device), 0, 0
    attached, form = trainer.attached, trainer.format
    plain = trainer.criterion.at(0)
    matcher = plain.matcher.matchers[0] if isinstance(plain.matcher, MatcherSchedule) else plain.matcher
    attached.criterion = SetCriterion(_TimedMatcher(matcher, clock), plain.losses)
    trainer.model.train()
    source = trainer.feed.steps()
    clock.start()
    for number, work in enumerate(source):
        clock.ends("reading")
        for micro in work.share:
            inputs = form.normalize(send_to_device(micro.inputs, clock.device, non_blocking=True))
            clock.ends("moving")
            loss = trainer.wrapped(**inputs).loss
            clock.ends("loss")
            trainer.accelerator.backward(loss)
            clock.ends("backward")
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.settings.max_grad_norm)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        clock.ends("optimizer")
        images, steps = images + work.images, steps + 1
        if number + 1 == _WARM:
            clock.seconds, images, steps = dict.fromkeys(PARTS, 0.0), 0, 0
        if steps == _STEPS:
            break
    attached.criterion = plain
    return {part: seconds / steps for part, seconds in clock.seconds.items()}, images / steps
