"""A trainer of a tiny model on a dozen scenes, for tests of the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detr_ft.criterion import SetCriterion, detr_criterion
from detr_ft.data.augmentation.builtin import Augmentation
from detr_ft.data.generated.generate import generate
from detr_ft.data.pipeline.dataset import TrainTransform
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.models import fit_labels, load_model, set_trainable
from detr_ft.training.monitor.display import PlainDisplay
from detr_ft.training.settings import TrainSettings
from detr_ft.training.trainer import DetrTrainer


def make_trainer(
    start: Path,
    output: Path,
    lines: list[str] | None = None,
    criterion: SetCriterion | None = None,
    augment: Augmentation | None = None,
    checkpoint: Path | None = None,
    **settings: Any,
) -> DetrTrainer:
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
    )
