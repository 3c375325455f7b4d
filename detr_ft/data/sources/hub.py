"""Reads a data set of the Hub through `datasets.load_dataset`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Image, config, load_dataset
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from detr_ft.data.images import ImageError, image_size
from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.data.sources.folder import CATEGORY_KEYS
from detr_ft.data.sources.records import is_id, numbers, split_of, stated_side
from detr_ft.errors import UserError

# HfHubHTTPError derives from its HTTP library's base error, which is httpx's or httpx2's as the version will have it:
# its bases are therefore what an unreachable or silent server raises, whichever library is below.
_NETWORK_ERRORS: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, OfflineModeIsEnabled)
_REACH_SECONDS = 10.0

log = logging.getLogger(__name__)


def read_hub(name: str) -> DatasetDict:
    """The data set of the Hub called `name` (`USER/NAME`, optionally `@REVISION`), or the copy of it in the local cache.

    Its rows need an image and a dictionary of lists with `bbox` (COCO xywh in pixels) and a category.
    """
    repository, _, revision = name.partition("@")
    reason = "" if Path(repository).exists() else _unreachable(repository, revision or None)
    if reason and not (Path(config.HF_DATASETS_CACHE) / repository.replace("/", "___")).exists():
        raise UserError(
            f"hub:{name}: the Hub can't be reached ({reason}) and the data set isn't in the local cache; "
            "connect, or name data on this machine, for example coco:PATH"
        )
    try:
        raw = load_dataset(repository, revision=revision or None)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"hub:{name}: can't be loaded ({error})") from error
    return to_schema(raw, f"hub:{name}")


def to_schema(raw: DatasetDict, origin: str) -> DatasetDict:
    """A `DatasetDict` of the Hub's detection convention, in the schema; splits that are none of ours are left out."""
    chosen = {}
    for word, rows in raw.items():
        split = split_of(word)
        if split is None or split in chosen or not len(rows):
            log.warning("%s: split %r is left out", origin, word)
        else:
            chosen[split] = _Columns(rows, f"{origin}, split {word}")
    if not chosen:
        raise UserError(f"{origin}: no split with images among {', '.join(raw) or 'none'}")
    names: list[str] = list(dict.fromkeys(name for columns in chosen.values() for name in columns.names()))
    return DatasetDict({split: columns.convert(names) for split, columns in chosen.items()})


def _unreachable(repository: str, revision: str | None) -> str:
    """Why the Hub can't answer, or nothing if it does; a data set that it doesn't have or show is the user's mistake."""
    try:
        HfApi().dataset_info(repository, revision=revision, timeout=_REACH_SECONDS)
    except HfHubHTTPError as error:
        if error.response.status_code >= 500:
            return str(error)
        raise UserError(f"hub:{repository}: the Hub doesn't give out this data set ({error})") from error
    except ValueError as error:
        raise UserError(f"hub:{repository}: not a name of the Hub ({error})") from error
    except _NETWORK_ERRORS as error:
        return str(error)
    return ""


class _Columns:
    """Which columns of a split hold image and objects, and their conversion."""

    def __init__(self, rows: Dataset, origin: str) -> None:
        self.rows, self.origin = rows, origin
        images = [name for name, feature in rows.features.items() if isinstance(feature, Image)]
        found = [(name, key) for name, feature in rows.features.items() for key in _category_keys(feature)]
        if not images or not found:
            raise UserError(
                f"{origin}: not a detection data set: needs an image column and a column of objects with bbox and "
                f"category; it has {', '.join(rows.features)}"
            )
        self.image, (self.objects, self.category) = images[0], found[0]

    def names(self) -> list[str]:
        """The classes: those of the ClassLabel, else the values that occur, sorted."""
        label = _inner(_fields(self.rows.features[self.objects])[self.category])
        if isinstance(label, ClassLabel):
            return list(label.names)
        values = {value for objects in self.rows[self.objects] for value in _lists(objects)[self.category]}
        return [str(value) for value in sorted(values, key=lambda value: (isinstance(value, str), value))]

    def convert(self, names: list[str]) -> Dataset:
        """The split in the schema; boxes stay as they are, whatever their defects."""
        rows = self.rows.cast_column(self.image, Image(decode=False))
        ids = rows["image_id"][:] if "image_id" in rows.column_names else []
        keeps_ids = bool(ids) and all(map(is_id, ids)) and len(set(ids)) == len(ids)
        label = _inner(_fields(rows.features[self.objects])[self.category])
        own = list(label.names) if isinstance(label, ClassLabel) else None
        settings = {
            "columns": (self.image, self.objects, self.category),
            "index": {name: i for i, name in enumerate(names)},
            "own": own,
            "keeps_ids": keeps_ids,
            "origin": self.origin,
        }
        return rows.map(
            _convert_row,
            with_indices=True,
            fn_kwargs=settings,
            remove_columns=rows.column_names,
            features=detection_features(names),
        )


def _convert_row(
    row: Mapping[str, Any],
    number: int,
    columns: tuple[str, str, str],
    index: Mapping[str, int],
    own: list[str] | None,
    keeps_ids: bool,
    origin: str,
) -> dict[str, object]:
    image, objects = row[columns[0]], _lists(row[columns[1]])
    values, categories = objects["bbox"], objects[columns[2]]
    boxes = [box for box in (numbers(list(value or []), 4) for value in values) if box]
    if len(boxes) != len(values) or len(boxes) != len(categories):
        raise UserError(f"{origin}, row {number}: every object needs a bbox of four numbers and a {columns[2]}")
    labels = [own[value] if own else str(value) for value in categories]
    areas, crowd, ids = objects.get("area"), objects.get("iscrowd"), objects.get("id") or []
    width, height = stated_side(row.get("width")), stated_side(row.get("height"))
    if width is None or height is None:
        width, height = _size(image)
    return {
        "image": image,
        "image_id": row["image_id"] if keeps_ids else number,
        "width": width,
        "height": height,
        "objects": detection_objects(
            boxes,
            [index[label] for label in labels],
            ids=ids if len(ids) == len(boxes) and all(map(is_id, ids)) else None,
            area=areas,
            iscrowd=None if crowd is None else [bool(value) for value in crowd],
        ),
    }


def _size(image: Mapping[str, object]) -> tuple[int, int]:
    try:
        return image_size(image)
    except ImageError as error:
        log.warning("%s", error)
        return 0, 0


def _fields(feature: Any) -> dict[str, Any]:
    """The fields of a column of objects: a dictionary of lists, or a list of dictionaries."""
    fields = _inner(feature)
    return fields if isinstance(fields, dict) else {}


def _inner(feature: Any) -> Any:
    return getattr(feature, "feature", feature)


def _category_keys(feature: Any) -> list[str]:
    fields = _fields(feature)
    return [key for key in CATEGORY_KEYS if key in fields] if "bbox" in fields else []


def _lists(objects: Any) -> dict[str, list[Any]]:
    """The objects of a row as a dictionary of lists."""
    if isinstance(objects, list):
        return {key: [one[key] for one in objects] for key in objects[0]} if objects else _NOTHING
    return dict(objects)


_NOTHING: dict[str, list[Any]] = {"bbox": [], **{key: [] for key in CATEGORY_KEYS}}
