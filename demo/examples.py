"""Images with their truth to begin with: of a data set, of what a run held out, or generated ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image

from detr_ft.data import class_names
from detr_ft.data.box_frame import as_tensors, trainable_boxes
from detr_ft.data.generated.generate import CLASSES, generate
from detr_ft.data.images import open_image
from detr_ft.data.schema import provenance
from detr_ft.errors import InputError
from detr_ft.run_directory import RECIPE
from detr_ft.workflows.splits import split_of

logger = logging.getLogger(__name__)
_MOST = 12


@dataclass(frozen=True, eq=False)
class Example:
    """An image, and boxes xyxy in its pixels of classes by name."""

    name: str
    picture: Image.Image
    boxes: list[list[float]]
    names: list[str]

    def labels(self, known: Sequence[str]) -> list[int]:
        """The places of its classes in a model's."""
        return [known.index(name) for name in self.names]

    def saved(self, folder: Path, number: int) -> str:
        """The picture's path, once it is written into a folder, under a number: two images may have one name."""
        path = folder / f"{number} {Path(self.name).stem}.png"
        self.picture.save(path)
        return str(path)


def examples_of(model: str, names: Sequence[str], data: str | None) -> list[Example]:
    """A few of the data given, else of what the model's run held out, else generated ones where the classes are such.

    Raises InputError for given data of which the model knows no class; objects of the classes that it does not know are left out.
    """
    if data is not None:
        found = _of(split_of(model, data, None), names)
        if not any(one.names for one in found):
            raise InputError(
                f"--data {data}: none of its first {len(found)} images has an object that the model knows: {', '.join(names)}"
            )
        return found
    if (Path(model) / RECIPE).is_file():
        try:
            return _of(split_of(model, None, None), names)
        except InputError as error:  # the data lie elsewhere now, or the images of the run are gone
            logger.warning("no images of the run to begin with (%s); --data names some", error)
    for name, classes in CLASSES.items():
        if set(classes) == set(names):
            return _of(generate(f"{name}?train=0&validation=0&test=6&seed=77")["test"], names)
    return []


def _of(split: Dataset, known: Sequence[str]) -> list[Example]:
    names, found = class_names(split), []
    for row in split.select(range(min(_MOST, len(split)))):
        objects: dict[str, Any] = row["objects"]
        picture = open_image(row["image"])
        boxes, rows, _ = trainable_boxes(*as_tensors(objects), *picture.size)
        labels = [names[objects["category"][place]] for place in rows.tolist()]
        kept = [place for place, label in enumerate(labels) if label in known]
        name = Path(provenance(row["image"], row["image_id"])).name
        found.append(Example(name, picture, boxes[kept].tolist(), [labels[place] for place in kept]))
    return found
