"""An augmentation tried on made-up images, to find in seconds what would stop a run in its third hour."""

from __future__ import annotations

import traceback

from detr_ft.data.augmentation.builtin import Augmentation
from detr_ft.data.generated.generate import generate
from detr_ft.data.misplaced import find_misplaced
from detr_ft.data.pipeline.dataset import TrainExamples
from detr_ft.data.pipeline.transforms import ImageFormat, TrainTransform
from detr_ft.errors import UserError

_EPOCHS = 4
_FORMAT = ImageFormat({"max_height": 96, "max_width": 96}, (0.0,) * 3, (1.0,) * 3)


def try_augmentation(augment: Augmentation) -> str | None:
    """What goes wrong when images with many, few and no objects are augmented a few times; None where nothing does.

    Also told is where an object is no longer in its box.
    """
    split = generate("shapes?train=24&validation=0&edge=96")["train"]
    examples = TrainExamples(split, TrainTransform(_FORMAT, augment), seed=0)
    try:
        for examples.epoch in range(_EPOCHS):
            for index in range(len(split)):
                examples[index]
        return find_misplaced(augment)
    except UserError as error:
        return str(error).partition(": ")[2]
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises is what is asked for
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{augment!r} failed: {type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
