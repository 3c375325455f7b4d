"""The schema of all data sets: the Hub's convention for detection.

A row is `image` (path or bytes, not decoded), `image_id`, `width`, `height` and `objects`, a dictionary of lists of
equal length: `id` (of the annotation, else its index), `bbox` (COCO xywh, pixels of the upright image), `category`
(index of a ClassLabel), `area` (square pixels), `iscrowd`, and Pascal VOC's `difficult` and `truncated`. A crowd is an
ignored region: neither a target nor a false positive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, Features, Image, List, Value, concatenate_datasets

SPLITS = ("train", "validation", "test")


def detection_features(names: list[str]) -> Features:
    """Return the features of a split with the classes `names`, in the order of their indices."""
    return Features(
        {
            "image": Image(decode=False),
            "image_id": Value("int64"),
            "width": Value("int32"),
            "height": Value("int32"),
            "objects": {
                "id": List(Value("int64")),
                "bbox": List(List(Value("float64"), length=4)),
                "category": List(ClassLabel(names=names)),
                "area": List(Value("float64")),
                "iscrowd": List(Value("bool")),
                "difficult": List(Value("bool")),
                "truncated": List(Value("bool")),
            },
        }
    )


def detection_objects(
    bbox: Sequence[Sequence[float]],
    category: Sequence[int],
    *,
    ids: Sequence[int] | None = None,
    area: Sequence[float] | None = None,
    iscrowd: Sequence[bool] | None = None,
    difficult: Sequence[bool] | None = None,
    truncated: Sequence[bool] | None = None,
) -> dict[str, list[object]]:
    """Return a row's `objects`; by default ids are indices, areas those of boxes, and flags False."""
    no = [False] * len(bbox)
    return {
        "id": list(range(len(bbox)) if ids is None else ids),
        "bbox": [list(box) for box in bbox],
        "category": list(category),
        "area": [box[2] * box[3] for box in bbox] if area is None else list(area),
        "iscrowd": list(no if iscrowd is None else iscrowd),
        "difficult": list(no if difficult is None else difficult),
        "truncated": list(no if truncated is None else truncated),
    }


def class_names(split: Dataset) -> list[str]:
    """Return the class names of a split in the order of their indices."""
    return list(split.features["objects"]["category"].feature.names)


def sizes_of(split: Dataset) -> list[tuple[int, int]]:
    """Return the stated width and height of every image in pixels."""
    return list(zip(split["width"][:], split["height"][:], strict=True))


def with_columns(rows: Dataset, columns: Mapping[str, list[Any]], names: list[str] | None = None) -> Dataset:
    """Return the rows with some columns of the schema replaced, without reading images.

    `names` are the classes of replaced `objects`, by default those of the rows.
    """
    features = rows.features if names is None else detection_features(names)
    new = Dataset.from_dict(dict(columns), features=Features({key: features[key] for key in columns}))
    old = rows.select_columns([name for name in features if name not in columns])
    return concatenate_datasets([old, new], axis=1).select_columns(list(features))


def provenance(image: dict[str, object], image_id: int) -> str:
    """Return the name of an image for messages: its file if it has one, and its id."""
    path = image.get("path")
    return f"{path} (image {image_id})" if path else f"image {image_id}"


def boxes_of_classes(split: Dataset) -> dict[str, int]:
    """Return the number of boxes of each class in a split, without crowd regions."""
    counts = Counter(
        label
        for row in split.with_format(None).select_columns(["objects"])
        for label, crowd in zip(row["objects"]["category"], row["objects"]["iscrowd"], strict=True)
        if not crowd
    )
    return {name: counts[label] for label, name in enumerate(class_names(split))}
