"""Generated data sets: `generated:NAME?option=value&...`, without any files, deterministic for a seed.

Silhouettes on textured, noisy backgrounds: they occlude one another, form clusters, and measure 6 % to 60 % of the image's
longer side; a tenth of the images is empty. A class is a silhouette: color, texture and rotation are independent of it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from urllib.parse import parse_qsl

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray
from PIL import Image

from detr_ft.data.generated.scene import render_scene
from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.errors import InputError

CLASSES: dict[str, tuple[str, ...]] = {
    "shapes": ("circle", "square", "triangle", "star", "cross", "crescent", "arrow", "heart"),
    "workshop": ("gear", "wrench", "hammer", "funnel", "magnet"),
}


@dataclass(frozen=True)
class SceneOptions:
    """Numbers of images and objects, and image size; `edge` is the longer side in pixels."""

    train: int = 800
    validation: int = 200
    test: int = 0
    edge: int = 128
    max_objects: int = 8
    seed: int = 0


def generate(name_and_options: str) -> DatasetDict:
    """Return the splits of `NAME?train=800&validation=200&test=0&edge=128&max_objects=8&seed=0`.

    Raises InputError that lists every unknown name or option.
    """
    name, _, query = name_and_options.partition("?")
    options = _parse(name, query)
    names = list(CLASSES[name])
    features = detection_features(names)
    splits = {}
    for index, split in enumerate(("train", "validation", "test")):
        count = int(getattr(options, split))
        if count:
            rows = list(_rows(names, options, stream=index, count=count))
            columns = {key: [row[key] for row in rows] for key in features}
            splits[split] = Dataset.from_dict(columns, features=features)
    return DatasetDict(splits)


def _parse(name: str, query: str) -> SceneOptions:
    problems = []
    if name not in CLASSES:
        problems.append(f"generated:{name}: unknown name. Choose one of {', '.join(sorted(CLASSES))}.")
    options = SceneOptions()
    names = [field.name for field in fields(SceneOptions)]
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in names:
            problems.append(f"generated:{name}: unknown option {key!r}. Choose one of {', '.join(names)}.")
        elif not value.isdecimal():
            problems.append(f"generated:{name}: {key} must be a whole number, got {value!r}.")
        else:
            options = replace(options, **{key: int(value)})
    if not problems and options.edge < 64:
        problems.append(f"generated:{name}: edge must be at least 64 pixels, got {options.edge}.")
    if not problems and options.train + options.validation + options.test == 0:
        problems.append(f"generated:{name}: no split has an image. Set train, validation or test.")
    if not problems and options.max_objects < 1:
        problems.append(f"generated:{name}: max_objects must be at least 1.")
    if problems:
        raise InputError(problems)
    return options


def _rows(names: list[str], options: SceneOptions, stream: int, count: int) -> Iterator[dict[str, object]]:
    for index in range(count):
        # Every image has its own random stream, so that a split does not change with the size of another.
        random = np.random.default_rng([options.seed, stream, index])
        scene = render_scene(random, names, options.edge, options.max_objects)
        height, width = scene.pixels.shape[:2]
        yield {
            "image": {"path": None, "bytes": _png(scene.pixels)},
            "image_id": stream * 1_000_000 + index,
            "width": width,
            "height": height,
            "objects": detection_objects(
                scene.boxes,
                scene.labels,
                # Unique in a split.
                ids=[1 + options.max_objects * index + number for number in range(len(scene.labels))],
                area=scene.areas,
            ),
        }


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
