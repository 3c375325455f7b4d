"""The one schema that every source is read into: the Hub's own convention for detection.

A row is `image` (path or bytes, not decoded), `image_id`, `width`, `height` and `objects`, a dictionary of lists:
`bbox` (COCO xywh, pixels of the upright image), `category` (index of a ClassLabel), `area` (square pixels), `iscrowd`.
"""

from __future__ import annotations

from datasets import ClassLabel, Dataset, Features, Image, List, Value

SPLITS = ("train", "validation", "test")


def detection_features(names: list[str]) -> Features:
    """The features of a split whose classes are `names`, in the order of their indices."""
    return Features(
        {
            "image": Image(decode=False),
            "image_id": Value("int64"),
            "width": Value("int32"),
            "height": Value("int32"),
            "objects": {
                "bbox": List(List(Value("float64"), length=4)),
                "category": List(ClassLabel(names=names)),
                "area": List(Value("float64")),
                "iscrowd": List(Value("bool")),
            },
        }
    )


def class_names(split: Dataset) -> list[str]:
    """The names of the classes of a split in the schema, in the order of their indices."""
    return list(split.features["objects"]["category"].feature.names)


def provenance(image: dict[str, object], image_id: int) -> str:
    """How to name an image to the user: its file if it has one, and its id."""
    path = image.get("path")
    return f"{path} (image {image_id})" if path else f"image {image_id}"
