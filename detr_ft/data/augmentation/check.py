"""An augmentation tried on made-up images, to find in seconds what would stop a run in its third hour."""

from __future__ import annotations

import traceback
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

_EPOCHS = 4
_FORMAT = ImageFormat({"max_height": 96, "max_width": 96}, (0.0,) * 3, (1.0,) * 3)


_TRIES = 64
_TOLD = 2  # tries that went wrong: one may be a coincidence of a user's erasing, noise and cropping
_SIDE = 96
_OBJECT = (10, 55, 34, 72)  # xyxy; mirrored, turned or twice as large it is nowhere where it was
_LEAST_CONTRAST = 24.0  # grey levels; below, the object can't be told from its background
_LARGEST = 0.4  # part of the image; above, what is background can't be told


def try_augmentation(augment: Augmentation) -> str | None:
    """What goes wrong when images with many, few and no objects are augmented a few times; None where nothing does.

    Also told is where an object is no longer in its box.
    """
    split = generate("shapes?train=24&validation=0&edge=96")["train"]
    examples = TrainDataset(split, TrainTransform(_FORMAT, augment), seed=0)
    try:
        for examples.epoch in range(_EPOCHS):
            for index in range(len(split)):
                examples[index]
        return find_misplaced(augment)
    except InputError as error:
        return str(error).partition(": ")[2]
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises is what is asked for
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{augment!r} failed: {type(error).__name__}: {error} ({last.filename}, line {last.lineno})"


def find_misplaced(augment: Augmentation) -> str | None:
    """What to say of an augmentation whose boxes aren't where the object is; None where they are, or it can't be told."""
    wrong = []
    for seed in range(_TRIES):
        out = augment(_sample(), np.random.default_rng(seed), _background)
        wrong += [box for box in out.boxes if _is_beside(box, out.image)]
    if len(wrong) < _TOLD:
        return None
    return (
        f"{augment!r} moved the image without its boxes, or boxes without their image: of {_TRIES} tries with a made-up "
        f"object, {len(wrong)} ended with nothing in its box and something elsewhere; flip(), crop() and resize() of a "
        "Sample move both"
    )


def _sample() -> Sample:
    """A background with one object, and its box."""
    left, top, right, bottom = _OBJECT
    empty = _background()
    image = empty.image.clone()
    image[:, top:bottom, left:right] = torch.tensor([255, 240, 40], dtype=torch.uint8)[:, None, None]
    box, label = torch.tensor([_OBJECT], dtype=torch.float32), torch.tensor([0])
    return replace(empty, image=image, boxes=box, labels=label, crowd=torch.tensor([False]))


def _background() -> Sample:
    """A nearly even grey: an augmentation that spreads contrasts needs some."""
    ramp = torch.linspace(88, 104, _SIDE).round().to(torch.uint8)
    image = ramp.expand(3, _SIDE, _SIDE).clone()
    return Sample(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool))


def _is_beside(box: Tensor, image: Tensor) -> bool:
    """Whether most of a box is background, while as much as it holds stands out elsewhere."""
    left, top, right, bottom = (round(value) for value in box.tolist())
    area = (right - left) * (bottom - top)
    if not 0 < area <= _LARGEST * image[0].numel():
        return False
    pixels = image.float()
    away = (pixels - pixels.flatten(1).median(1).values[:, None, None]).abs().amax(0)
    most = float(away.max())
    if most < _LEAST_CONTRAST:
        return False
    standing_out = away > most / 2
    inside = int(standing_out[top:bottom, left:right].sum())
    elsewhere = int(standing_out.sum()) - inside
    return bool(inside < area / 2 <= elsewhere)
