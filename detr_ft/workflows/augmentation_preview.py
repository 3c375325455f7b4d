"""A picture of what an augmentation does to images of a data set."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, DatasetDict
from PIL import Image

from detr_ft.data import class_names
from detr_ft.data.box_frame import to_pixels
from detr_ft.data.pipeline.dataset import TrainDataset, TrainTransform
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.errors import InputError
from detr_ft.recipe import build_file
from detr_ft.utils.drawing import draw
from detr_ft.utils.files import writing

_ROWS, _COLUMNS = 4, 5  # images, and how often each is drawn: as it is, then augmented
_MIN_CELL_PX, _MAX_CELL_PX = 320, 480  # sides of a cell; the recipe's size if it is between them
_GAP_PX = 8


def check_is_png(out: Path) -> None:
    """Raise InputError if the name of a picture doesn't end in .png."""
    if out.suffix.lower() != ".png":
        raise InputError(f"{out}: the output is a PNG. Use a file name ending in .png")


def preview_augmentation(data: DatasetDict, recipe_file: Path, out: Path) -> None:
    """Write a picture of four images: as they are, then as a recipe augments them in four epochs.

    The images of the train split with most objects are drawn, at the recipe's size. Raises InputError.
    """
    built = build_file(recipe_file)
    recipe = built.recipe
    if "train" not in data:
        raise InputError(f"the data have no train split to augment, only {', '.join(data)}")
    train, edge = data["train"], recipe.data.longest_edge or 800
    format = ImageFormat({"max_height": edge, "max_width": edge}, (0.0,) * 3, (1.0,) * 3)
    plain = TrainDataset(train, TrainTransform(format), recipe.train.seed)
    augmented = TrainDataset(train, TrainTransform(format, built.augmentation, recipe.mixing_epochs), recipe.train.seed)
    cell = min(max(_MIN_CELL_PX, edge), _MAX_CELL_PX)
    side = cell + _GAP_PX
    sheet = Image.new("RGB", (_COLUMNS * side + _GAP_PX, _ROWS * side + _GAP_PX), "white")
    for row, index in enumerate(_fullest(train)):
        for column in range(_COLUMNS):
            examples = augmented if column else plain
            examples.epoch = max(0, column - 1)
            picture = _picture(examples, index, class_names(train), cell)
            sheet.paste(picture, (_GAP_PX + column * side, _GAP_PX + row * side))
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out)


def _fullest(split: Dataset) -> list[int]:
    counts = [len(objects["category"]) for objects in split["objects"]]
    return sorted(range(len(split)), key=lambda row: (-counts[row], row))[:_ROWS]


def _picture(examples: TrainDataset, index: int, names: list[str], cell: int) -> Image.Image:
    """An example as the model is shown it, reduced to a cell of the sheet, with its boxes."""
    example = examples[index]
    image = Image.fromarray(example["pixel_values"].permute(1, 2, 0).contiguous().numpy())
    image.thumbnail((cell, cell))  # before names are written, which would be too small to read
    labels = example["labels"]
    picture = draw(image, to_pixels(labels["boxes"], image.size), labels["class_labels"], names)
    picture.thumbnail((cell, cell))
    return picture
