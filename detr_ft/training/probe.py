"""A look at a run before it is long: can it learn a batch, how fast is a step and where does its time go, does the worst fit."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn
from torch.optim import AdamW

from detr_ft.criterion.matchers import MatcherSchedule
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.errors import UserError
from detr_ft.structures import Matches, Predictions, Step, Targets
from detr_ft.training.feed import MicroBatch
from detr_ft.training.interrupt import agreed
from detr_ft.training.loop import DetrTrainer
from detr_ft.training.passes import PlainPasses

logger = logging.getLogger(__name__)

PARTS = ("reading", "moving", "forward", "matching", "loss", "backward", "optimizer")
_STEPS, _WARM = 20, 2
_OVERFIT_STEPS, _OVERFIT_SECONDS = 120, 60.0
_LEARNED, _LEARNS = (
    0.5,
    0.8,
)  # of the loss at the start: what is left when a batch is learned, and when it is being learned


@dataclass(frozen=True)
class Overfit:
    """What came of training on one batch alone."""

    verdict: str  # pass, slow or fail
    steps: int
    first: Mapping[str, float]
    last: Mapping[str, float]
    reason: str


@dataclass(frozen=True)
class Worst:
    """The largest batch that the plan holds, as if each of its images had the most objects: what it takes."""

    images: int
    height: int
    width: int
    objects: int
    mebibytes: int | None  # None where it did not fit

    @property
    def words(self) -> str:
        """The batch in words."""
        return f"{self.images} images of {self.width}x{self.height} pixels with {self.objects} objects each"


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
        replayed=not isinstance(trainer.stepper.passes, PlainPasses),
    )


def fit_memory(trainer: DetrTrainer) -> None:
    """Halve how many images go through the model at once until the worst batch fits, on all processes alike, and say so.

    Raises UserError where a single image is too much.
    """
    stepper = trainer.stepper
    while True:
        worst = try_worst(trainer, stepper.largest)
        if not agreed(int(worst.mebibytes is None), trainer.accelerator.num_processes, trainer.accelerator.device):
            break
        if worst.images == 1:
            raise UserError(
                f"one image of {worst.width}x{worst.height} pixels with {worst.objects} objects is more than memory holds: "
                "a smaller data.longest_edge, or train.gradient_checkpointing=true, takes less"
            )
        stepper.largest = worst.images // 2
        torch.cuda.empty_cache()
    if stepper.largest < trainer.settings.per_device_train_batch_size:
        logger.warning(
            "%d images at once are more than memory holds at the worst (%dx%d pixels, %d objects each): they go through the "
            "model by %d, for the same steps with the same gradient",
            trainer.settings.per_device_train_batch_size, worst.width, worst.height, worst.objects, stepper.largest,
        )  # fmt: skip
    logger.info("the worst batch (%s) takes %d MiB", worst.words, worst.mebibytes)


def try_worst(trainer: DetrTrainer, most: int) -> Worst:
    """Take the gradient of the worst batch, of at most so many images, and forget it: nothing of the trainer changes."""
    height, width = trainer.format.canvas or _largest_shape(trainer)
    objects = max(len(one["category"]) for one in trainer.examples.split["objects"])
    images = min(most, len(trainer.examples))
    label = {
        "class_labels": torch.zeros(objects, dtype=torch.long),
        "boxes": torch.tensor([0.5, 0.5, 0.2, 0.2]).repeat(objects, 1),
        "image_id": torch.tensor([0]),
    }
    inputs = {
        "pixel_values": torch.zeros(images, height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2),
        "pixel_mask": torch.ones(images, height, width, dtype=torch.bool),
        "labels": [label] * images,
    }
    if trainer.accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with _untouched(trainer.model), trainer.accelerator.no_sync(trainer.wrapped):
        fits = _gradient(trainer, inputs)
    return Worst(images, height, width, objects, _peak(trainer) if fits else None)


def _gradient(trainer: DetrTrainer, inputs: Mapping[str, Any]) -> bool:
    # Said here, so that the processes need not ask each other.
    trainer.attached.step = Step(1.0, torch.ones(trainer.model.config.num_labels, device=trainer.accelerator.device))
    try:
        moved = trainer.format.normalise(send_to_device(dict(inputs), trainer.accelerator.device))
        trainer.wrapped(**moved).loss.backward()
    except torch.OutOfMemoryError:
        return False
    finally:
        trainer.model.zero_grad()
        trainer.attached.step = None
    return True


def _largest_shape(trainer: DetrTrainer) -> tuple[int, int]:
    """Height and width of the largest batch of the first epoch, in pixels, by the sizes of its images."""
    split, form = trainer.examples.split, trainer.format
    sizes = [form.resized(w, h) for w, h in zip(split["width"], split["height"], strict=True)]
    batches = [part for _, _, _, parts in _first_epoch(trainer) for part in parts if part]
    shapes = [(max(sizes[row][1] for row in part), max(sizes[row][0] for row in part)) for part in batches]
    height, width = max(shapes, key=lambda shape: shape[0] * shape[1])
    rounding = trainer.feed.rounding
    return -(-height // rounding) * rounding, -(-width // rounding) * rounding


def _first_epoch(trainer: DetrTrainer) -> Iterator[tuple[int, int, int, list[list[int]]]]:
    for step in trainer.feed.plan(0, 0):
        if step[0] > 0:
            return
        yield step


@dataclass
class _Clock:
    """Seconds by part; a GPU is waited for at each reading."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _since: float = 0.0

    def start(self) -> None:
        self._since = self._now()

    def ends(self, part: str) -> None:
        now = self._now()
        self.seconds[part] += now - self._since
        self._since = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


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
            inputs = form.normalise(send_to_device(micro.inputs, clock.device, non_blocking=True))
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


def overfit(trainer: DetrTrainer) -> Overfit:
    """Train on the first batch with objects alone, without dropout, at the learning rates of the recipe."""
    micro = next(micro for work in trainer.feed.steps() for micro in work.share if _objects(micro))
    optimizer = AdamW([{**group, "lr": group["initial_lr"]} for group in _plain_groups(trainer)])
    began = time.monotonic()
    losses: list[float] = []
    terms: list[dict[str, float]] = []
    with _without_dropout(trainer.model):
        while len(losses) < _OVERFIT_STEPS and time.monotonic() - began < _OVERFIT_SECONDS:
            inputs = trainer.format.normalise(send_to_device(micro.inputs, trainer.accelerator.device))
            outputs = trainer.wrapped(**inputs)
            outputs.loss.backward()
            nn.utils.clip_grad_norm_(trainer.model.parameters(), trainer.settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(outputs.loss.item())
            terms.append({name: value.item() for name, value in outputs.loss_dict.items() if name[-1].isalpha()})
            if losses[-1] < _LEARNED * losses[0]:
                break
    verdict, reason = judge_overfit(losses, terms)
    return Overfit(verdict, len(losses), {"loss": losses[0], **terms[0]}, {"loss": losses[-1], **terms[-1]}, reason)


def judge_overfit(losses: Sequence[float], terms: Sequence[Mapping[str, float]]) -> tuple[str, str]:
    """Whether the losses of training on one batch show that it can be learned: pass, slow or fail, and why."""
    first, last = losses[0], losses[-1]
    fell = f"the loss of one batch went from {first:.3g} to {last:.3g} in {len(losses)} steps"
    if last < _LEARNED * first:
        return "pass", fell
    stuck = [name for name in terms[0] if name.startswith("loss") and terms[-1][name] > 0.95 * terms[0][name]]
    if last < _LEARNS * first and len(losses) >= _OVERFIT_STEPS:
        return "slow", f"{fell}: it learns, slowly; a higher train.learning_rate may do"
    if len(losses) < _OVERFIT_STEPS and last < first:
        return "slow", f"{fell}, and there was no time for more: steps are slow on this machine"
    why = f"; {', '.join(stuck)} did not fall" if stuck else ""
    return "fail", f"{fell}{why}: look at what trains (model.freeze), the learning rate, boxes and classes"


def _plain_groups(trainer: DetrTrainer) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = trainer.optimizer.param_groups
    return [{key: group[key] for key in ("params", "initial_lr", "weight_decay")} for group in groups]


def _objects(micro: MicroBatch) -> int:
    return sum(len(one["class_labels"]) for one in micro.inputs["labels"])


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Norms that learn keep their figures, and the model its mode."""
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    training = model.training
    model.train()
    try:
        yield
    finally:
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
        model.train(training)


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """In evaluation mode there is no dropout; norms stay as they are, too."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _peak(trainer: DetrTrainer) -> int:
    """MiB at the most: of the GPU where the model is on one, since it was last asked, else of this process so far."""
    if trainer.accelerator.device.type == "cuda":
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)
