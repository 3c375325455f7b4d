"""Check of an augmentation on generated images: errors, invalid samples and misplaced boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from detr_ft.data.augmentation.builtin import Augmentation
from detr_ft.data.generated.generate import generate
from detr_ft.data.pipeline.dataset import TrainDataset, TrainTransform
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.pipeline.sample import Sample
from detr_ft.errors import InputError
from detr_ft.utils.user_code import describe_error, raise_if_interrupt

_EPOCHS = 4
_FORMAT = ImageFormat({"max_height": 96, "max_width": 96}, (0.0,) * 3, (1.0,) * 3)

_TRIES = 64
_MIN_MISPLACED_BOXES = 2  # a single one may come from erasing, noise and cropping together
_IMAGE_SIDE_PX = 96
_OBJECT_BOX = (10, 55, 34, 72)  # xyxy; disjoint from itself mirrored, rotated or twice as large
_MIN_CONTRAST_LEVELS = 24.0  # below, object and background are not distinguishable
_MAX_BOX_FRACTION = 0.4  # of the image; above, the median is not the background


def try_augmentation(augment: Augmentation) -> str | None:
    """Return what goes wrong when images with many, few and no objects are augmented, or None.

    Also detects objects that are no longer in their box.
    """
    split = generate("shapes?train=24&validation=0&edge=96")["train"]
    examples = TrainDataset(split, TrainTransform(_FORMAT, augment), seed=0)
    try:
        for epoch in range(_EPOCHS):
            for index in range(len(split)):
                examples.at(epoch, index)
        return find_misplaced(augment)
    except InputError as error:
        return str(error).partition(": ")[2] or f"{augment!r} failed: {describe_error(error)}"
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
        raise_if_interrupt(error)
        return f"{augment!r} failed: {describe_error(error)}"


def find_misplaced(augment: Augmentation) -> str | None:
    """Return a message for an augmentation that moves boxes away from their objects, or None."""
    misplaced = 0
    for seed in range(_TRIES):
        output = augment(_sample(), np.random.default_rng(seed), _background)
        misplaced += sum(_is_misplaced(box, output.image) for box in output.boxes)
    if misplaced < _MIN_MISPLACED_BOXES:
        return None
    return (
        f"{augment!r} moves pixels without boxes, or boxes without pixels: in {_TRIES} tries with a generated object, "
        f"{misplaced} boxes were empty while the object was elsewhere. Use flip(), crop() and resize() of Sample, which move both."
    )


def _sample() -> Sample:
    """Return a background with one object, and its box."""
    left, top, right, bottom = _OBJECT_BOX
    empty = _background()
    image = empty.image.clone()
    image[:, top:bottom, left:right] = torch.tensor([255, 240, 40], dtype=torch.uint8)[:, None, None]
    box, label = torch.tensor([_OBJECT_BOX], dtype=torch.float32), torch.tensor([0])
    return replace(empty, image=image, boxes=box, labels=label, crowd=torch.tensor([False]))


def _background() -> Sample:
    """Return a nearly uniform gray, with some contrast for augmentations that stretch it."""
    ramp = torch.linspace(88, 104, _IMAGE_SIDE_PX).round().to(torch.uint8)
    image = ramp.expand(3, _IMAGE_SIDE_PX, _IMAGE_SIDE_PX).clone()
    return Sample(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool))


def _is_misplaced(box: Tensor, image: Tensor) -> bool:
    """Return whether most of a box is background, while pixels of its area stand out elsewhere."""
    left, top, right, bottom = (round(value) for value in box.tolist())
    area = (right - left) * (bottom - top)
    if not 0 < area <= _MAX_BOX_FRACTION * image[0].numel():
        return False
    pixels = image.float()
    contrast = (pixels - pixels.flatten(1).median(1).values[:, None, None]).abs().amax(0)
    highest = float(contrast.max())
    if highest < _MIN_CONTRAST_LEVELS:
        return False
    foreground = contrast > highest / 2
    inside = int(foreground[top:bottom, left:right].sum())
    elsewhere = int(foreground.sum()) - inside
    return bool(inside < area / 2 <= elsewhere)
