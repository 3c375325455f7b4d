"""Short tests before a long run: overfit a batch, time a step by part, try the largest batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from detr_ft.training.preflight.memory import LargestBatch, fit_memory, try_largest
from detr_ft.training.preflight.overfit import Overfit, overfit, unchanged
from detr_ft.training.preflight.timing import time_parts
from detr_ft.training.step import EagerForwardBackward
from detr_ft.training.trainer import DetrTrainer
from detr_ft.utils.formatting import duration, percent

logger = logging.getLogger(__name__)

_MIN_STEPS_TO_OVERFIT = 5000  # of a run, to which the 120 steps of the test add little


@dataclass(frozen=True)
class Probe:
    """The results of a probe. `parts` are seconds a step."""

    overfit: Overfit
    largest: LargestBatch
    images_per_second: float
    seconds_per_step: float
    steps: int
    parts: Mapping[str, float]
    uses_cuda_graphs: bool

    @property
    def seconds(self) -> float:
        """The duration of all steps of the run."""
        return self.steps * self.seconds_per_step


def check_before_training(trainer: DetrTrainer) -> None:
    """Try the largest batch on a GPU, and overfit one batch before a long run; the run stays the same.

    A batch that cannot be learned is logged and no error. It is tried by a single process, and not by a resumed run. Raises
    InputError if a single image does not fit in memory.
    """
    trainer.setup()
    if trainer.accelerator.device.type == "cuda":
        fit_memory(trainer)
    steps = trainer.loader.total_steps
    if steps < _MIN_STEPS_TO_OVERFIT or trainer.progress.step > 0 or trainer.accelerator.num_processes > 1:
        return
    logger.info("overfitting one batch, before %d steps", steps)
    with unchanged(trainer.stepper):
        result = overfit(trainer)
    level = logging.WARNING if result.verdict == "fail" else logging.INFO
    logger.log(level, "one batch: %s: %s", result.verdict, result.reason)


def probe(trainer: DetrTrainer) -> Probe:
    """Run all tests in a single process; they train the model, so the trainer cannot be used again.

    Raises StepError if a step fails.
    """
    trainer.setup()
    largest = try_largest(trainer, trainer.stepper.max_images)
    learning = overfit(trainer)
    parts, images = time_parts(trainer)
    seconds = sum(parts.values())
    return Probe(
        overfit=learning,
        largest=largest,
        images_per_second=images / seconds,
        seconds_per_step=seconds,
        steps=trainer.loader.total_steps,
        parts=parts,
        uses_cuda_graphs=not isinstance(trainer.stepper.forward_backward, EagerForwardBackward),
    )


def describe_probe(result: Probe, workers: int) -> list[str]:
    """Return lines on learning, speed, parts of a step, memory, and advice for a run with `workers`."""
    parts = ", ".join(f"{part} {percent(seconds / result.seconds_per_step)}" for part, seconds in result.parts.items())
    largest = result.largest
    memory = "does not fit in memory" if largest.mebibytes is None else f"takes {largest.mebibytes:,} MiB"
    graphs = "these steps ran operation by operation; with CUDA graphs they are as fast as the last line reports"
    return [
        f"one batch: {result.overfit.verdict}: {result.overfit.reason}",
        f"speed: {result.images_per_second:.1f} images/s, {result.seconds_per_step:.2f} s a step; "
        f"{result.steps} steps take {duration(result.seconds)}, without evaluations",
        *([graphs] if result.uses_cuda_graphs else []),
        f"a step's time: {parts}",
        f"the largest batch ({largest}) {memory}",
        *(f"advice: {sentence}" for sentence in _advice(result, workers)),
    ]


def _advice(result: Probe, workers: int) -> list[str]:
    fractions = {part: seconds / result.seconds_per_step for part, seconds in result.parts.items()}
    advice = []
    if fractions["reading"] > 0.2:
        advice.append(
            f"much of a step is waiting for images: train.dataloader_num_workers={max(2, 2 * workers)} reads them during the "
            "steps (at most the number of free cores)"
        )
    if fractions["matching"] > 0.1:
        advice.append("matching is slow: pip install 'detr-ft[fast]' installs a faster solver with the same result")
    if result.largest.mebibytes is None and result.largest.images > 1:
        advice.append(
            f"train.per_device_train_batch_size={result.largest.images // 2} with train.gradient_accumulation_steps=2 takes the "
            "same steps in less memory; train does so by itself"
        )
    return advice
