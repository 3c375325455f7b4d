"""Training loops for DETR-ResNet-50 to compare: that of transformers' examples, and `DetrTrainer`'s."""

from __future__ import annotations

import argparse
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

from detr_ft.criterion import detr_criterion
from detr_ft.data.images import open_image
from detr_ft.data.schema import class_names, detection_features, detection_objects
from detr_ft.models.freeze import set_trainable
from detr_ft.models.label_map import fit_labels
from detr_ft.models.load import load_model
from detr_ft.training.monitor.display import PlainDisplay
from detr_ft.training.settings import TrainSettings
from detr_ft.training.trainer import DetrTrainer

warnings.filterwarnings("ignore")
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
WORKERS = max(1, (os.cpu_count() or 2) - 1)
OBJECTS, CLASSES = 7, 80


@dataclass
class Way:
    """A training loop: a step on a given batch, and the batches of its loader."""

    name: str
    images: int
    step: Callable[[], object]
    run: Callable[[], Iterator[object]]
    parts: dict[str, tuple[object, str]]  # where each part of a step is called: an object and its method
    per_second: list[float] = field(default_factory=list)
    milliseconds: dict[str, float] = field(default_factory=dict)  # of a step, by part
    from_files: list[float] = field(default_factory=list)
    busy: float | None = None
    waits: int | None = None
    memory: int | None = None


def rows(files: list[Path], number: int) -> Dataset:
    """So many rows in the schema, over the same files again and again."""
    generator = torch.Generator().manual_seed(0)
    columns: dict[str, list[Any]] = {name: [] for name in detection_features(["thing"])}
    for place in range(number):
        corners = torch.rand(OBJECTS, 2, generator=generator) * torch.tensor([500.0, 350.0])
        sides = 20 + 100 * torch.rand(OBJECTS, 2, generator=generator)
        labels = torch.randint(CLASSES, (OBJECTS,), generator=generator).tolist()
        row = {"image": {"path": str(files[place % len(files)]), "bytes": None}, "image_id": place, "width": 640}
        row |= {"height": 480, "objects": detection_objects(torch.hstack([corners, sides]).tolist(), labels)}
        for name, value in row.items():
            columns[name].append(value)
    return Dataset.from_dict(columns, features=detection_features([f"c{number}" for number in range(CLASSES)]))


def processor_of(edge: int) -> DetrImageProcessor:
    return DetrImageProcessor(size={"shortest_edge": edge, "longest_edge": round(edge * 1333 / 800)})


def model_of(arguments: argparse.Namespace) -> DetrForObjectDetection:
    torch.manual_seed(0)
    if arguments.embedded:
        model = load_model("embedded:small")[0]
        set_trainable(model, [])
        return model
    config = DetrConfig(backbone_config=ResNetConfig(out_features=["stage4"]), num_labels=CLASSES)
    model = DetrForObjectDetection(config)
    set_trainable(model, ["backbone.stem", "backbone.stage1"])
    return model


def stock(arguments: argparse.Namespace, split: Dataset, bf16: bool, workers: int) -> Way:
    """The loop of the example."""
    model, processor = model_of(arguments).to(DEVICE).train(), processor_of(arguments.edge)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, weight_decay=1e-4, fused=True)
    classes = model.config.num_labels

    def read(batch: list[dict[str, Any]]) -> dict[str, Any]:
        annotations = [
            {
                "image_id": row["image_id"],
                "annotations": [
                    {"bbox": box, "category_id": label % classes, "area": box[2] * box[3], "iscrowd": 0}
                    for box, label in zip(row["objects"]["bbox"], row["objects"]["category"], strict=True)
                ],
            }
            for row in batch
        ]
        images = [open_image(row["image"]["path"]).convert("RGB") for row in batch]
        return dict(processor(images=images, annotations=annotations, return_tensors="pt"))

    def step(batch: dict[str, Any]) -> None:
        moved = {
            name: value.to(DEVICE) if isinstance(value, torch.Tensor) else [{k: v.to(DEVICE) for k, v in one.items()} for one in value]
            for name, value in batch.items()
        }  # fmt: skip
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            loss = model(**moved).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.1)
        optimizer.step()
        optimizer.zero_grad()
        if torch.isnan(loss) or torch.isinf(loss):
            raise ValueError("the loss is not finite")

    def loader(workers: int) -> DataLoader[Any]:
        return DataLoader(
            split.with_transform(lambda columns: columns), batch_size=arguments.images, num_workers=workers,
            collate_fn=read, pin_memory=GPU, shuffle=True,
        )  # fmt: skip

    batch = next(iter(loader(0)))
    name = f"stock, {'bf16' if bf16 else 'fp32'}, {workers or 'no'} workers"
    parts = {
        "criterion": (model, "loss_function"),
        "backward": (torch.Tensor, "backward"),
        "optimizer": (optimizer, "step"),
    }
    return Way(name, arguments.images, lambda: step(batch), lambda: (step(one) for one in loader(workers)), parts)


def ours(arguments: argparse.Namespace, split: Dataset, folder: Path, how: dict[str, bool], workers: int) -> Way:
    """The step and the feed of `DetrTrainer`."""
    model, processor = model_of(arguments), processor_of(arguments.edge)
    settings = TrainSettings(
        output_dir=str(folder), dataloader_num_workers=workers, learning_rate=1e-6,
        per_device_train_batch_size=arguments.images, num_train_epochs=1, **how,
    )  # fmt: skip
    fit_labels(model, class_names(split))
    trainer = DetrTrainer(
        model, detr_criterion(), split, None, settings, processor=processor, display=PlainDisplay(lambda line: None)
    )
    trainer.setup()
    trainer.stepper.start_epoch(0)
    numbers = itertools.count(1)

    def step(batch: Any) -> None:
        terms = trainer.stepper.step(batch, min(next(numbers), trainer.loader.total_steps))
        trainer.monitor.log.interval.add(batch.images, terms)

    first = next(trainer.loader.steps())
    name = ", ".join(["ours", *(f"{name}={value}".lower() for name, value in how.items())])
    parts = {
        "criterion": (trainer.stepper.attached, "score"),
        "backward": (torch.Tensor, "backward"),
        "optimizer": (trainer.stepper.optimizer, "step"),
    }
    return Way(name, arguments.images, lambda: step(first), lambda: map(step, trainer.loader.steps()), parts)
