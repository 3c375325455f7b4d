"""Files of detections in COCO's results format: write them, and match those of others with a split."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.data.schema import class_names
from detr_ft.errors import InputError
from detr_ft.evaluation.box_format_check import box_format_doubt
from detr_ft.evaluation.detections import coco_results
from detr_ft.run_directory import PREDICTIONS, RunDirectory
from detr_ft.structures import Detections
from detr_ft.utils.files import writing
from detr_ft.workflows.image_matching import ImageId, ImageMatches, SplitImages, as_number, names_from_common_folder
from detr_ft.workflows.prediction_rows import PredictionRow, PredictionRows

_MAX_FAULTS_SHOWN = 20
_MAX_CATEGORIES_SHOWN = 10

log = logging.getLogger(__name__)


def save_predictions(
    folder: RunDirectory, split: Dataset, detections: Sequence[Detections], numbers: Mapping[int, str]
) -> None:
    """Write `predictions.json` into a run.

    A result has the name of its class as `category`, and that of its image as `file_name` if that identifies the image.
    `numbers` are the data's own category ids; if it has none, an id is the index of the class.
    """
    folder.write_text(PREDICTIONS, _as_text(split, detections, numbers))


def write_predictions(file: Path, split: Dataset, detections: Sequence[Detections], numbers: Mapping[int, str]) -> None:
    """Write the same into a file of any name. Raises InputError if it can't be written."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_as_text(split, detections, numbers), encoding="utf-8")


def _as_text(split: Dataset, detections: Sequence[Detections], numbers: Mapping[int, str]) -> str:
    names = class_names(split)
    name_of = numbers or dict(enumerate(names))
    # Categories of the same name are one class; the first id stands for it.
    number_of = {name: number for number, name in sorted(name_of.items(), reverse=True)}
    files = _file_names(split)
    lines = []
    for image_id, file_name, image in zip(split["image_id"][:], files, detections, strict=True):
        for row in coco_results([image], [image_id], [number_of[name] for name in names]):
            named = {"category": name_of[row["category_id"]]} | ({"file_name": file_name} if file_name else {})
            lines.append(json.dumps(row | named, ensure_ascii=False))
    return "[" + ",\n".join(lines) + "]\n"


def _file_names(split: Dataset) -> list[str]:
    """Return the name by which `read_predictions` finds each image; empty where only the id does.

    It is the path from the common folder of all images, with the name of that folder.
    """
    images = split.with_format(None).select_columns(["image"])
    paths = {row: str(image["image"]["path"]) for row, image in enumerate(images) if image["image"]["path"]}
    names = dict(zip(paths, names_from_common_folder(list(paths.values())), strict=True))
    matched = SplitImages(split).match_names(set(names.values())).rows
    return [names[row] if matched.get(names.get(row, "")) == row else "" for row in range(len(split))]


def read_predictions(file: Path, split: Dataset, numbers: Mapping[int, str]) -> list[Detections]:
    """Return the detections of each row of a split from a file.

    The file has COCO's results, or is a COCO file whose annotations have scores. An image is identified by `file_name`,
    else by `image_id`, which may be the name of its file. A class is identified by its name, or by its id among the
    data's own `numbers`, or by its index if it has none. Images and names of classes that the data don't have are left
    out and logged. Reasons to doubt the format of the boxes are logged. Raises InputError with everything that doesn't
    fit: malformed rows, ambiguous images, unknown ids of classes, or a file without a known image or class.
    """
    parsed = PredictionRows.read(file)
    images = SplitImages(split)
    row_of = _match_images(parsed, images)
    classes = _Classes(class_names(split), numbers)
    results: list[list[tuple[list[float], float, int]]] = [[] for _ in range(len(split))]
    for result in parsed.rows:
        index = classes.index_of(result)
        row = row_of.get(_key(result))
        if index is not None and row is not None:
            results[row].append((result.box, result.score, index))
    classes.check(parsed)
    _raise_faults(parsed)
    _log_images(parsed, row_of, len(split))
    detections = [_detections(rows) for rows in results]
    doubt = box_format_doubt(split, detections)
    if doubt:
        log.warning("%s: %s", file, doubt)
    return detections


_Key = tuple[str | None, ImageId | None]


def _key(result: PredictionRow) -> _Key:
    """Return the key of a result's image: its file name if it has one, else its id."""
    return (result.file_name, None) if result.file_name is not None else (None, result.image_id)


def _match_images(parsed: PredictionRows, images: SplitImages) -> dict[_Key, int]:
    """Return the row of each image that the split has. Raises InputError for ambiguous images."""
    first: dict[_Key, int] = {}
    for result in parsed.rows:
        first.setdefault(_key(result), result.number)
    names = [name for name, _ in first if name is not None]
    ids = [image_id for name, image_id in first if name is None and image_id is not None]
    by_name = images.match_names(names) if images.have_names else ImageMatches()
    if names and not images.have_names:
        # Images without files are identified by their ids alone.
        pairs = {result.file_name: result.image_id for result in parsed.rows if result.file_name is not None}
        known = images.match_ids([image_id for image_id in pairs.values() if image_id is not None]).rows
        by_name = ImageMatches({name: known[key] for name, key in pairs.items() if name and key in known})
    by_id = _match_ids(parsed, ids, images)
    ambiguous = [*by_name.ambiguous, *by_id.ambiguous]
    if ambiguous:
        raise InputError([f"{parsed.file}: {message}" for message in ambiguous[:_MAX_FAULTS_SHOWN]])
    rows: dict[_Key, int] = {(str(name), None): row for name, row in by_name.rows.items()}
    rows |= {(None, image_id): row for image_id, row in by_id.rows.items()}
    if first and not rows:
        _add_unknown_images(parsed, first, images)
    return rows


def _match_ids(parsed: PredictionRows, ids: Sequence[ImageId], images: SplitImages) -> ImageMatches:
    """Match ids, which may be numbers or names of files: as what more of them are in the data."""
    as_ids = images.match_ids(ids)
    as_names = images.match_stems(ids)
    if len(as_names.rows) > len(as_ids.rows):
        image_id, row = next(iter(as_names.rows.items()))
        log.info(
            "%s: image ids are matched with file names, for example %r with %s",
            parsed.file, image_id, images.name_of(row),
        )  # fmt: skip
        return as_names
    differing = [image_id for image_id, row in as_names.rows.items() if as_ids.rows.get(image_id) != row]
    if as_ids.rows and differing and len(as_names.rows) == len(as_ids.rows):
        row = as_names.rows[differing[0]]
        log.warning(
            "%s: image ids are used as ids of the data, but they might be the names of files: %r is also %s. "
            "Write the name of each image as file_name",
            parsed.file, differing[0], images.name_of(row),
        )  # fmt: skip
    return as_ids


def _add_unknown_images(parsed: PredictionRows, first: Mapping[_Key, int], images: SplitImages) -> None:
    example = images.first_name()
    for (name, image_id), number in first.items():
        if name is not None:
            fault = f"the data have no image with the file name {name}"
            parsed.add_fault(number, f"{fault}; one of theirs is {example}" if example else fault)
        else:
            parsed.add_fault(
                number,
                f"the data have no image with the id {image_id!r}; ids are those of the annotations, or file names",
            )


def _log_images(parsed: PredictionRows, row_of: Mapping[_Key, int], num_images: int) -> None:
    keys = list(dict.fromkeys(map(_key, parsed.rows)))
    unknown = [key for key in keys if key not in row_of]
    if unknown:
        name, image_id = unknown[0]
        log.warning(
            "%s: predictions of %d images that are not in the data are left out, for example %r",
            parsed.file, len(unknown), image_id if name is None else name,
        )  # fmt: skip
    without = num_images - len(set(row_of.values()))
    if without:
        log.info("%s: %d of the %d images of the data have no predictions", parsed.file, without, num_images)


class _Classes:
    """The classes of the data by name and by id; counts names that they don't have."""

    def __init__(self, names: Sequence[str], numbers: Mapping[int, str]) -> None:
        self._index_of = {name: index for index, name in enumerate(names)}
        self._name_of = dict(numbers) or dict(enumerate(names))
        self._names = {*names, *self._name_of.values()}
        self._used_ids: set[int] = set()
        self._unknown_ids: dict[int, int] = {}  # with the first row of each
        self._unknown_names: dict[str, int] = {}
        self._num_known = 0

    def index_of(self, result: PredictionRow) -> int | None:
        """Return the index of a result's class, None for one without objects in the data."""
        category = result.category
        number = None if category in self._names else as_number(category)
        if number is not None:
            self._used_ids.add(number)
            if number not in self._name_of:
                self._unknown_ids.setdefault(number, result.number)
                return None
            category = self._name_of[number]
        if category not in self._names:
            self._unknown_names.setdefault(str(category), result.number)
            return None
        self._num_known += 1
        return self._index_of.get(str(category))

    def check(self, parsed: PredictionRows) -> None:
        """Add faults for unknown ids and for a file without a known class; log other unknown names."""
        shift = self._shift()
        for number, row in self._unknown_ids.items():
            first = ", ".join(
                f"{known} {name}" for known, name in sorted(self._name_of.items())[:_MAX_CATEGORIES_SHOWN]
            )
            more = " ..." if len(self._name_of) > _MAX_CATEGORIES_SHOWN else ""
            parsed.add_fault(
                row, f"category_id must be one of the data's ({first}{more}), got {number}. {shift}".strip()
            )
        if shift and not self._unknown_ids:
            log.warning("%s: %s", parsed.file, shift)
        if self._unknown_names and not self._num_known:
            for name, row in self._unknown_names.items():
                parsed.add_fault(row, f"the data have no class {name}")
        elif self._unknown_names:
            listed = ", ".join(list(self._unknown_names)[:_MAX_CATEGORIES_SHOWN])
            log.warning("%s: predictions of classes that are not in the data are left out: %s", parsed.file, listed)

    def _shift(self) -> str:
        """Return a sentence with the remedy if ids seem to be counted from another first id than the data's."""
        of_objects = {number for number, name in self._name_of.items() if name in self._index_of}
        if not self._used_ids or not of_objects or self._used_ids <= of_objects:
            return ""
        first = min(self._used_ids)
        remedy = ""
        if {number + 1 for number in self._used_ids} <= of_objects:
            remedy = "Add 1 to each category_id"
        elif {number - 1 for number in self._used_ids} <= of_objects:
            remedy = "Subtract 1 from each category_id"
        elif first in (0, 1) and max(self._used_ids) < first + len(self._name_of):
            remedy = f"If they are positions in the list of classes, replace {first} by {min(self._name_of)} and so on"
        if not remedy:
            return ""
        return (
            f"The ids of the file start at {first}, those of the data's objects at {min(of_objects)}. "
            f"{remedy}, or write the names of the classes as category"
        )


def _raise_faults(parsed: PredictionRows) -> None:
    if parsed.faults:
        faults = list(parsed.faults.values())
        hidden = len(faults) - _MAX_FAULTS_SHOWN
        more = [f"{parsed.file}: and {hidden:,} more"] if hidden > 0 else []
        raise InputError([*faults[:_MAX_FAULTS_SHOWN], *more])


def _detections(rows: list[tuple[list[float], float, int]]) -> Detections:
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    xywh: Tensor = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    score = torch.tensor(scores, dtype=torch.float64)
    order = score.argsort(descending=True, stable=True)
    return Detections(xywh_to_xyxy(xywh)[order], score[order], torch.tensor(labels, dtype=torch.long)[order])
