"""A trainer of a tiny model on a dozen scenes, for tests of the loop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from detr_ft.criterion import SetCriterion, detr_criterion
from detr_ft.data.augmentation.builtin import Augmentation
from detr_ft.data.generated.generate import generate
from detr_ft.data.pipeline.dataset import TrainTransform
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.models.freeze import set_trainable
from detr_ft.models.label_map import fit_labels
from detr_ft.models.load import load_model
from detr_ft.training.callbacks import Callback
from detr_ft.training.monitor.display import PlainDisplay
from detr_ft.training.monitor.evaluator import Evaluation
from detr_ft.training.settings import TrainSettings
from detr_ft.training.trainer import DetrTrainer


def unprepared_trainer(
    start: Path,
    output: Path,
    lines: list[str] | None = None,
    criterion: SetCriterion | None = None,
    augment: Augmentation | None = None,
    checkpoint: Path | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> DetrTrainer:
    """A trainer that has stored its arguments and done nothing."""
    data = generate("workshop?train=12&validation=6&edge=64")
    model, processor = load_model(str(start))
    fit_labels(model, data["train"].features["objects"]["category"].feature.names)
    set_trainable(model, [])
    values = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "logging_steps": 2, "learning_rate": 1e-3}
    return DetrTrainer(
        model,
        criterion or detr_criterion(),
        data["train"],
        data["validation"],
        TrainSettings(output_dir=str(output), **(values | settings)),
        processor=processor,
        transform=TrainTransform(ImageFormat.of(processor), augment),
        display=PlainDisplay((lines if lines is not None else []).append),
        checkpoint=checkpoint,
        callbacks=callbacks,
    )


def make_trainer(start: Path, output: Path, lines: list[str] | None = None, **arguments: Any) -> DetrTrainer:
    """A trainer that is set up, so that a test can change its parts."""
    trainer = unprepared_trainer(start, output, lines, **arguments)
    trainer.setup()
    return trainer


def signal_after(trainer: DetrTrainer, step: int, send: Callable[[], object]) -> None:
    """Call `send` once so many steps are taken."""
    shown = trainer.display.step

    def step_and_send(at: int, row: dict[str, Any] | None) -> None:
        shown(at, row)
        if at == step:
            send()

    trainer.display.step = step_and_send  # type: ignore[method-assign, assignment]


def stop_after(trainer: DetrTrainer, step: int, number: int = signal.SIGTERM) -> None:
    """Let a trainer notice a signal once so many steps are taken."""
    signal_after(trainer, step, lambda: setattr(trainer.stop_requests.signals, "received", number))


def with_maps(trainer: DetrTrainer, maps: list[float | None]) -> None:
    """Let evaluations have these mAPs, one after another."""
    values: Iterator[float | None] = iter(maps)

    def measure(check_stop: object) -> Evaluation:
        return Evaluation({"map": next(values), "map_50": 0.5, "map_75": 0.1, "per_class": {}}, [])

    trainer.monitor.measure = measure  # type: ignore[method-assign]
