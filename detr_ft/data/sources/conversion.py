"""Conversion of records, one for each image of annotation files, to a data set in the schema."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from datasets import Dataset, DatasetDict

from detr_ft.data.schema import SPLITS, detection_features
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.listing import name_splits, split_of_path
from detr_ft.data.sources.parsing import is_storable
from detr_ft.data.sources.problems import Problem, ProblemKind, group_problems, raise_all, summarize
from detr_ft.data.sources.record import Record
from detr_ft.data.sources.same_image import unite_records
from detr_ft.errors import InputError

log = logging.getLogger(__name__)


def to_source_data(
    splits: Mapping[str, Sequence[Record]],
    names: Sequence[str],
    origin: Path,
    problems: Sequence[Problem] = (),
    *,
    split_by: str | None,
    category_ids: Mapping[int, str] = MappingProxyType({}),
    annotated: Iterable[Path] = (),
) -> SourceData:
    """Convert the records of each split to a data set with the classes `names`.

    `split_by` is what decides on the split of an image, for messages; None if nothing does. Images are then in the splits
    that their folders are named after, and train in other folders. Splits without images are left out. `problems` are
    those that belong to no record, `annotated` the images with annotations that are in no split. Raises InputError for a
    data set without images or classes. Several records of one image file become one.
    """
    splits, repeated = unite_records(splits, origin)
    num_without_word = 0
    if split_by is None:
        splits, split_by, num_without_word = _split_by_folders(splits)
    for split, records in splits.items():
        if not records:
            log.warning("%s: split %s has no images and is left out", origin, split)
    raise_all([*_unstorable((record for records in splits.values() for record in records), names, origin)])
    log_image_errors(record for records in splits.values() for record in records)
    filled = {split: list(splits[split]) for split in SPLITS if splits.get(split)}
    counts = ", ".join(
        f"{split} {len(records)}{_without_word(num_without_word, len(records)) if split == 'train' else ''}"
        for split, records in filled.items()
    )
    log.info("%s: %s: %s", origin, f"split by {split_by}" if split_by else "nothing names a split", counts)
    all_problems = (*problems, *repeated, *problems_of(filled))
    if not filled or not names:
        lacking = "images" if not filled else "classes"
        raise InputError(
            [f"{origin}: the data set has no {lacking}", *summarize([one.message for one in all_problems])]
        )
    features, class_indices = detection_features(list(names)), {name: index for index, name in enumerate(names)}
    data = DatasetDict(
        {
            split: Dataset.from_dict(
                {"image": _images(records), **schema_columns(records, class_indices)}, features=features
            )
            for split, records in filled.items()
        }
    )
    unlabeled = {
        split: tuple(row for row, record in enumerate(records) if record.unlabeled) for split, records in filled.items()
    }
    return SourceData(data, dict(category_ids), all_problems, unlabeled, frozenset(annotated))


def _split_by_folders(splits: Mapping[str, Sequence[Record]]) -> tuple[Mapping[str, Sequence[Record]], str, int]:
    """Return the splits that the folders of images are named after, what decides, and a number.

    That is the number of images in folders without a split word, which are train. All images are train, and nothing
    decides, if all of them are in folders of one split, or if no folder is validation or test.
    """
    records = [record for some in splits.values() for record in some]
    if not records:
        return {"train": []}, "", 0
    root = Path(os.path.commonpath([record.path.parent for record in records]))
    of_folders = [split_of_path(record.path, root) for record in records]
    if not name_splits(of_folders):
        return {"train": records}, "", 0
    by_folder: dict[str, list[Record]] = {}
    for split, record in zip(of_folders, records, strict=True):
        by_folder.setdefault(split or "train", []).append(record)
    return by_folder, "the folders of the images", of_folders.count(None)


def _without_word(count: int, num_train: int) -> str:
    """Return a note on the train images in folders without a split word, empty without any."""
    if not count:
        return ""
    return f" ({'' if count == num_train else f'{count} in '}folders without a split word)"


def used_names(splits: Mapping[str, Iterable[Record]]) -> set[str]:
    """Return the names of the classes that occur in any split."""
    return {name for records in splits.values() for record in records for name in record.names}


def sort_naturally(names: Iterable[str]) -> list[str]:
    """Sort names: words alphabetically, then whole numbers by their value."""
    return sorted(set(names), key=_natural_key)


def _natural_key(name: str) -> tuple[int, str, str]:
    # Compares numbers by their digits: `int` refuses thousands of them.
    digits = name.lstrip("0") if name.isdecimal() else ""
    return (len(digits) + 1, digits, name) if name.isdecimal() else (0, "", name)


def problems_of(splits: Mapping[str, Sequence[Record]]) -> Iterator[Problem]:
    """Yield the problems of records, each with the split and row of its image."""
    for split, records in splits.items():
        for row, record in enumerate(records):
            for message in record.unreadable:
                yield Problem("unreadable annotation", message, split=split, row=row)
            for message in record.doubts:
                yield Problem("unreadable annotation", message, split=split, row=row, count=0)
            kind: ProblemKind = "shape without area" if record.names else "unreadable annotation"
            for message in record.without_area:
                yield Problem(kind, message, split=split, row=row)
            for place, message in record.faults.items():
                yield Problem("unknown class", message, message.partition(": ")[2], split, row, place)


def log_image_errors(records: Iterable[Record]) -> None:
    """Log images that can't be read. They stay in the data set, for the doctor to report."""
    for line, _ in group_problems([record.image_error for record in records if record.image_error]):
        log.warning("%s", line)


def _unstorable(records: Iterable[Record], names: Sequence[str], origin: Path) -> Iterator[str]:
    """Yield problems with names that no file can have or no table can store."""
    for name in names:
        if not is_storable(name):
            yield f"{origin}: the class {name!a} has characters that can't be written. Rename it"
    for record in records:
        if not is_storable(str(record.path)):
            yield f"{origin}: the image name {str(record.path)!a} has characters that can't be written. Rename the file"


def _images(records: Sequence[Record]) -> list[dict[str, object]]:
    return [{"path": str(record.path), "bytes": record.content} for record in records]


def schema_columns(records: Sequence[Record], class_indices: Mapping[str, int]) -> dict[str, list[Any]]:
    """Return the columns of the schema except `image`."""
    return {
        "image_id": [record.image_id for record in records],
        "width": [record.width for record in records],
        "height": [record.height for record in records],
        "objects": [record.objects(class_indices) for record in records],
    }
