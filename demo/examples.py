"""Example images with ground truth: of given data, of a run's validation split, or generated."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image

from detr_ft.data.box_frame import as_tensors, trainable_boxes
from detr_ft.data.generated.generate import CLASSES, generate
from detr_ft.data.images import open_image
from detr_ft.data.schema import class_names, provenance
from detr_ft.errors import InputError
from detr_ft.run_directory import RECIPE
from detr_ft.workflows.splits import DataOptions, split_of

logger = logging.getLogger(__name__)
_MAX_EXAMPLES = 12
_GENERATED = "train=0&validation=0&test=6&seed=77"


@dataclass(frozen=True, eq=False)
class Example:
    """An image with its objects: boxes xyxy in its pixels, and the names of their classes."""

    name: str
    image: Image.Image
    boxes: list[list[float]]
    class_names: list[str]

    def labels(self, model_names: Sequence[str]) -> list[int]:
        """Return the indices of the objects' classes in those of a model."""
        return [model_names.index(name) for name in self.class_names]

    def save(self, folder: Path, number: int) -> str:
        """Write the image into a folder and return its path; the number distinguishes images of the same name."""
        path = folder / f"{number} {Path(self.name).stem}.png"
        self.image.save(path)
        return str(path)


def load_examples(
    model: str, names: Sequence[str], data: str | None, options: DataOptions = DataOptions()
) -> list[Example]:
    """Return examples of the data, read with the options, else of the model's run, else generated ones.

    Generated ones are for models of their classes; for others there are none. Objects of classes that the model lacks
    are left out. Raises InputError if no object of the given data is left.
    """
    if data is not None:
        examples = _examples_of(split_of(model, data, None, options), names)
        if not any(example.class_names for example in examples):
            raise InputError(
                f"--data {data}: the first {len(examples)} images have no object of the model's classes. "
                f"Use data with {', '.join(names)}."
            )
        return examples
    if (Path(model) / RECIPE).is_file():
        try:
            return _examples_of(split_of(model, None, None, options), names)
        except InputError as error:  # the data of the run were moved or deleted
            logger.warning("the run's images are not shown: %s. Show others with --data.", error)
    for name, classes in CLASSES.items():
        if set(classes) == set(names):
            return _examples_of(generate(f"{name}?{_GENERATED}")["test"], names)
    return []


def _examples_of(split: Dataset, model_names: Sequence[str]) -> list[Example]:
    names, examples = class_names(split), []
    for row in split.select(range(min(_MAX_EXAMPLES, len(split)))):
        objects: dict[str, Any] = row["objects"]
        image = open_image(row["image"])
        boxes, rows, _ = trainable_boxes(*as_tensors(objects), *image.size)
        labels = [names[objects["category"][index]] for index in rows.tolist()]
        selected = [index for index, label in enumerate(labels) if label in model_names]
        name = Path(provenance(row["image"], row["image_id"])).name
        examples.append(Example(name, image, boxes[selected].tolist(), [labels[index] for index in selected]))
    return examples
