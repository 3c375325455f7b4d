"""Examine a data set, and write its report, repaired copy and pictures."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from PIL import Image

from detr_ft.data import export as coco_export
from detr_ft.data.box_frame import to_pixels
from detr_ft.data.doctor import Diagnosis, Finding, diagnose, repair_data, scan_dataset
from detr_ft.data.doctor.changes import (
    CHANGE_LOG,
    Change,
    RepairedData,
    balance,
    left_out_warnings,
    problem_of_copy,
    to_json_lines,
)
from detr_ft.data.doctor.repair import write_repaired
from detr_ft.data.integrity.annotated_size import Frame
from detr_ft.data.pipeline.dataset import TrainDataset, TrainTransform
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.schema import class_names
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.registry import UnlabeledPolicy, parse_spec
from detr_ft.errors import InputError
from detr_ft.hub.push import check_target, push_dataset
from detr_ft.recipe.load import build_file, load_recipe
from detr_ft.recipe.recipe import IN_MEMORY
from detr_ft.report.doctor import write_report
from detr_ft.utils.arguments import check_whole_number
from detr_ft.utils.drawing import draw
from detr_ft.utils.files import check_new_file, check_new_folder, writing
from detr_ft.workflows.splits import DataLike, DataOptions, PathLike, check_not_empty, read_as_is

logger = logging.getLogger(__name__)

_HUB = "hub:"
_ROWS, _COLUMNS = 4, 5  # of a picture: images, and how often each is drawn: as it is, then augmented
_MIN_CELL_PX, _MAX_CELL_PX = 320, 480  # sides of a cell; the recipe's size if it is between them
_GAP_PX = 8
_MIN_EDGE_PX = 32  # of a resized image, as in recipes


@dataclass(frozen=True)
class DoctorOutcome:
    """The diagnosis of a data set, and what was written.

    `changes`, `left_out` (sentences on what a repaired copy lacks if that is much) and `balance` (images and objects of the
    files, of the copy and left out) are empty without `fix`.
    """

    diagnosis: Diagnosis
    changes: tuple[Change, ...] = ()
    left_out: tuple[str, ...] = ()
    balance: str = ""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The problems of the data, none for clean data."""
        return self.diagnosis.findings


def doctor(
    data: DataLike,
    *,
    report: PathLike | None = None,
    fix: PathLike | None = None,
    drawn_on: Frame | None = None,
    write_coco: PathLike | None = None,
    num_queries: int = 100,
    longest_edge: int | None = None,
    box_format: str | None = None,
    images: PathLike | None = None,
    unlabeled: UnlabeledPolicy | None = None,
    augment: PathLike | None = None,
    augment_out: PathLike | None = None,
) -> DoctorOutcome:
    """Examine a data set, image by image; the data stay as they are.

    `report` is a new .html file, `fix` a new folder or `hub:OWNER/NAME` for a repaired copy, `write_coco` a new folder
    for the data as COCO files, and `augment` a recipe whose augmentation is drawn to the new .png file `augment_out`.
    `drawn_on` is the size, stated or the file's, for which boxes were drawn if that is ambiguous. `num_queries` and
    `longest_edge` (pixels) are the model's. Raises InputError before anything is read if one of the outputs can't be
    written.
    """
    outputs = _Outputs(
        report=_path(report),
        coco=_path(write_coco),
        augment=_path(augment),
        augment_out=_path(augment_out),
        fix=None if fix is None else os.fspath(fix),
    )
    check_whole_number("num_queries", num_queries, 1)
    if longest_edge is not None:
        check_whole_number("longest_edge", longest_edge, _MIN_EDGE_PX)
    outputs.check(drawn_on)
    given = read_as_is(data, DataOptions(box_format, images, unlabeled))
    if outputs.coco is not None:  # COCO files can't mark objects that are missing
        SourceData(given.splits, given.category_ids, given.problems).checked()
    check_not_empty(given.splits)
    splits, scan = given.splits, scan_dataset(given.splits)
    roots = _roots(given.source)
    note = problem_of_copy(Path(roots[0])) if roots else None
    problems = given.problems if note is None else (*given.problems, note)
    diagnosis = diagnose(splits, scan, num_queries, longest_edge, problems, roots, given.annotated)
    if outputs.report is not None:
        write_report(diagnosis, splits, outputs.report)
        logger.info("report: %s", outputs.report)
    if outputs.coco is not None:
        coco_export.write_coco(splits, outputs.coco)
        logger.info("COCO files: %s", outputs.coco)
    if outputs.fix is None and outputs.picture is None:
        return DoctorOutcome(diagnosis)
    repaired = repair_data(splits, scan, drawn_on, given.problems)
    if outputs.augment is not None and outputs.picture is not None:
        preview_augmentation(repaired.data, outputs.augment, outputs.picture)
        logger.info("images as %s augments them: %s", outputs.augment, outputs.picture.resolve())
    if outputs.fix is None:
        return DoctorOutcome(diagnosis)
    logger.info("repaired copy, with every change in %s: %s", CHANGE_LOG, _write(repaired, outputs.fix))
    return DoctorOutcome(
        diagnosis,
        repaired.changes,
        tuple(left_out_warnings(splits, repaired)),
        balance(splits, repaired, given.problems),
    )


def _roots(source: str) -> list[str]:
    """Return the folder of the data, absolute and as given; empty for data without a path."""
    if source.startswith(IN_MEMORY):
        return []
    path = Path(parse_spec(source)[1])
    folder = path if path.is_dir() else path.parent
    return [str(folder.absolute()), str(folder)] if path.exists() else []


@dataclass(frozen=True)
class _Outputs:
    report: Path | None
    coco: Path | None
    augment: Path | None
    augment_out: Path | None
    fix: str | None

    @property
    def picture(self) -> Path | None:
        """The file for the picture of augmented images, by default in the current folder."""
        return self.augment and (self.augment_out or Path(f"{self.augment.stem}-augmented.png"))

    def check(self, drawn_on: Frame | None) -> None:
        """Raise InputError for outputs that can't be written and options that need others."""
        if self.report is not None:
            check_new_file(self.report)
        if self.coco is not None:
            check_new_folder(self.coco)
        if self.fix is not None and self.fix.startswith(_HUB):
            check_target(self.fix.removeprefix(_HUB))
        elif self.fix is not None:
            check_new_folder(Path(self.fix))
        if self.augment is not None:
            load_recipe(self.augment)
        elif self.augment_out is not None:
            raise InputError(
                "augment_out (--augment-out) is the file for the picture of a recipe. Give augment (--augment) too"
            )
        if self.picture is not None:
            check_new_file(self.picture)
            if self.picture.suffix.lower() != ".png":
                raise InputError(f"{self.picture}: the output is a PNG. Use a file name ending in .png")
        if drawn_on is not None and self.fix is None:
            raise InputError("drawn_on (--drawn-on) applies to the repaired copy. Give fix (--fix) too")


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)


def _write(repaired: RepairedData, target: str) -> str:
    if target.startswith(_HUB):
        return push_dataset(repaired.data, target.removeprefix(_HUB), {CHANGE_LOG: to_json_lines(repaired.changes)})
    write_repaired(repaired, Path(target))
    return target


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
    for row, index in enumerate(_most_objects(train)):
        for column in range(_COLUMNS):
            examples = augmented if column else plain
            picture = _draw_example(examples.at(max(0, column - 1), index), class_names(train), cell)
            sheet.paste(picture, (_GAP_PX + column * side, _GAP_PX + row * side))
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out)


def _most_objects(split: Dataset) -> list[int]:
    counts = [len(objects["category"]) for objects in split["objects"]]
    return sorted(range(len(split)), key=lambda row: (-counts[row], row))[:_ROWS]


def _draw_example(example: Mapping[str, Any], names: list[str], cell: int) -> Image.Image:
    """Return an example as the model receives it, reduced to a cell of the sheet, with its boxes."""
    image = Image.fromarray(example["pixel_values"].permute(1, 2, 0).contiguous().numpy())
    image.thumbnail((cell, cell))  # before names are written, which would be too small to read
    labels = example["labels"]
    picture = draw(image, to_pixels(labels["boxes"], image.size), labels["class_labels"], names)
    picture.thumbnail((cell, cell))
    return picture
