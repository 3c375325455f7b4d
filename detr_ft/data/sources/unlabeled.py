"""Images with neither a label file nor a record: what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets

from detr_ft.data.schema import detection_objects
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.listing import images_in
from detr_ft.data.sources.problems import Problem, ProblemKind
from detr_ft.data.sources.record import Record
from detr_ft.data.sources.registry import UnlabeledPolicy

_MIN_LOST_IMAGES = 2
_LOST_SPLIT = "all images of the split have no labels"

log = logging.getLogger(__name__)


def apply_policy(data: SourceData, policy: UnlabeledPolicy | None, default: UnlabeledPolicy) -> SourceData:
    """Return the data with its unlabeled images by the policy, each with a problem.

    Those are images that a source lists (YOLO, WebDataset), for which the policy is by default `default`, and image files in
    the folders of the data that no record lists, which are by default left out.
    """
    if policy is None or policy == "skip":
        count = sum(map(len, _unlisted(data).values()))
        if count:
            log.warning("%d image files beside those of the data have no record and are left out", count)
    if (policy or default) == "skip":
        return _skip(data)
    data = _refuse_lost_splits(data) if policy is None else _with_unlisted(data)
    kind: ProblemKind = "missing label" if policy == "error" else "unlabeled"
    what = "data.unlabeled is error" if policy == "error" else "it is read as an image without objects"
    problems = [
        Problem(kind, f"{path}: has no labels; {what}", what, split, row)
        for split, rows in data.unlabeled.items()
        for row, path in zip(rows, _names(data.splits[split], rows), strict=True)
    ]
    return replace(data, problems=(*data.problems, *problems))


def _refuse_lost_splits(data: SourceData) -> SourceData:
    """Return the data with a refused problem for each unlabeled image of a split without any label.

    Its folder of labels is likely lost. A test split beside others is left out instead: tests without labels are published.
    """
    lost = {
        split: rows
        for split, rows in data.unlabeled.items()
        if len(rows) == len(data.splits[split]) >= _MIN_LOST_IMAGES
    }
    if "test" in lost and len(data.splits) > 1:
        log.warning("the %d images of test have no labels and are left out", len(lost["test"]))
        return _refuse_lost_splits(data.without_rows({"test": lost["test"]}))
    problems = [
        Problem("missing label", f"{path}: has no labels, like all images of {split}", _LOST_SPLIT, split, row)
        for split, rows in lost.items()
        for row, path in zip(rows, _names(data.splits[split], rows), strict=True)
    ]
    unlabeled = {split: rows for split, rows in data.unlabeled.items() if split not in lost}
    return replace(data, problems=(*data.problems, *problems), unlabeled=unlabeled)


def _skip(data: SourceData) -> SourceData:
    count = sum(map(len, data.unlabeled.values()))
    if not count:
        return data
    log.warning("%d images without labels are left out (unlabeled: skip)", count)
    return data.without_rows({split: set(rows) for split, rows in data.unlabeled.items()})


def _with_unlisted(data: SourceData) -> SourceData:
    """Return the data with the image files in its folders that no record lists, as unlabeled images."""
    splits, unlabeled = dict(data.splits), dict(data.unlabeled)
    for split, files in _unlisted(data).items():
        log.info("%s: %d image files without a record are read as images without objects", split, len(files))
        rows = splits[split]
        splits[split] = concatenate_datasets([rows, _without_objects(files, rows)])
        unlabeled[split] = (*unlabeled.get(split, ()), *range(len(rows), len(rows) + len(files)))
    return replace(data, splits=DatasetDict(splits), unlabeled=unlabeled)


def _unlisted(data: SourceData) -> dict[str, list[Path]]:
    """Return the image files in the folders of each split's images of which the data have no annotation."""
    paths = {split: list(map(Path, filter(None, _paths(rows)))) for split, rows in data.splits.items()}
    listed = {path for some in paths.values() for path in some} | data.annotated
    unlisted: dict[str, list[Path]] = {}
    for split, some in paths.items():
        folders = sorted({path.parent for path in some if path.is_absolute()})
        files = [file for folder in folders for file in images_in(folder) if file not in listed]
        listed |= set(files)
        if files:
            unlisted[split] = files
    return unlisted


def _without_objects(files: list[Path], rows: Dataset) -> Dataset:
    first = max(rows["image_id"], default=-1) + 1
    records = [Record.with_size(file, first + index) for index, file in enumerate(files)]
    columns = {
        "image": [{"path": str(record.path), "bytes": None} for record in records],
        "image_id": [record.image_id for record in records],
        "width": [record.width for record in records],
        "height": [record.height for record in records],
        "objects": [detection_objects([], []) for _ in records],
    }
    return Dataset.from_dict(columns, features=rows.features)


def _paths(rows: Dataset) -> list[str]:
    """Return the paths of images that are files, empty for others."""
    return [str(image["path"] or "") if image["bytes"] is None else "" for image in _images(rows)]


def _names(rows: Dataset, indices: Sequence[int]) -> list[str]:
    """Return the paths of images, of those in memory the path in their tar file, else their rows."""
    images = _images(rows)
    return [str(images[index]["path"] or f"row {index}") for index in indices]


def _images(rows: Dataset) -> list[dict[str, Any]]:
    return [row["image"] for row in rows.with_format(None).select_columns(["image"])]
