"""A picture of what an augmentation does to somebody's own images."""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import Dataset, DatasetDict
from PIL import Image

from detr_ft.boxes import cxcywh_to_xyxy
from detr_ft.data import class_names
from detr_ft.data.pipeline.dataset import TrainExamples
from detr_ft.data.pipeline.transforms import ImageFormat, TrainTransform
from detr_ft.errors import InputError
from detr_ft.recipe import load_recipe
from detr_ft.utils.drawing import draw
from detr_ft.utils.files import writing
from detr_ft.workflows.prepare import mixing_epochs

_ROWS, _COLUMNS = 4, 5  # images, and how often each is shown: as it is, then augmented
_LEAST, _MOST = 320, 480  # pixels of a cell's side: the recipe's own size within these
_GAP = 8


def refuse_other_format(out: Path) -> None:
    """A InputError where the name of a picture doesn't say that it is a PNG."""
    if out.suffix.lower() != ".png":
        raise InputError(f"{out}: the picture is a PNG file, so let its name end in .png")


def preview_augmentation(data: DatasetDict, recipe_file: Path, out: Path) -> None:
    """Write a picture of four images of the train split: as they are, then as a recipe augments them in four epochs.

    The images with most objects are shown, at the recipe's size. Raises InputError.
    """
    recipe, _ = load_recipe(recipe_file)
    if "train" not in data:
        raise InputError(f"the data has no train split to augment, only {', '.join(data)}")
    train, edge = data["train"], recipe.data.longest_edge or 800
    form = ImageFormat({"max_height": edge, "max_width": edge}, (0.0,) * 3, (1.0,) * 3)
    plain = TrainExamples(train, TrainTransform(form), recipe.train.seed)
    augmented = TrainExamples(
        train, TrainTransform(form, recipe.build_augmentation(), mixing_epochs(recipe)), recipe.train.seed
    )
    cell = min(max(_LEAST, edge), _MOST)
    side = cell + _GAP
    sheet = Image.new("RGB", (_COLUMNS * side + _GAP, _ROWS * side + _GAP), "white")
    for row, index in enumerate(_fullest(train)):
        for column in range(_COLUMNS):
            examples = augmented if column else plain
            examples.epoch = max(0, column - 1)
            picture = _picture(examples, index, class_names(train), cell)
            sheet.paste(picture, (_GAP + column * side, _GAP + row * side))
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out)


def _fullest(split: Dataset) -> list[int]:
    counts = [len(objects["category"]) for objects in split["objects"]]
    return sorted(range(len(split)), key=lambda row: (-counts[row], row))[:_ROWS]


def _picture(examples: TrainExamples, index: int, names: list[str], cell: int) -> Image.Image:
    """An example as the model is shown it, reduced to a cell of the sheet, with its boxes."""
    example = examples[index]
    image = Image.fromarray(example["pixel_values"].permute(1, 2, 0).contiguous().numpy())
    image.thumbnail((cell, cell))  # before names are written, which would be too small to read
    labels = example["labels"]
    size = torch.tensor([image.width, image.height]).repeat(2)
    picture = draw(image, cxcywh_to_xyxy(labels["boxes"]) * size, labels["class_labels"], names)
    picture.thumbnail((cell, cell))
    return picture
