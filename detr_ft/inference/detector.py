"""Image in, boxes out: a detector to use from Python, and the same over a whole split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from detr_ft.data.images import open_image, upright_rgb
from detr_ft.errors import InputError
from detr_ft.models.attach import attach_criterion
from detr_ft.models.load import load_detector, load_model
from detr_ft.models.metadata import own_block
from detr_ft.models.optimizations.fused_norms import fold_norms
from detr_ft.models.predict import batches_of, detect, inference
from detr_ft.structures import Detections, Predictions, Targets

_THRESHOLD = 0.5  # of a model that knows no better


class _Knowing:
    """What a detector knows by its config."""

    @property
    def config(self) -> Any:
        """The checkpoint's."""
        raise NotImplementedError

    @property
    def names(self) -> list[str]:
        """The names of the classes, in the order of their indices."""
        return [name for _, name in sorted(self.config.id2label.items())]

    @property
    def thresholds(self) -> dict[str, float]:
        """The score from which on a detection of each class is to be believed, as measured when the model was made; 0.5 else."""
        kept = own_block(self.config).get("thresholds") or {}
        return {name: float(kept.get(name, _THRESHOLD)) for name in self.names}

    def filter(self, found: Detections, threshold: float | None = None) -> Detections:
        """Those above a threshold, or where it is None, above that of their class."""
        if threshold is not None:
            return found.above(threshold)
        thresholds = self.thresholds
        return found.above_each([thresholds[name] for name in self.names])  # a name may come twice, as COCO's N/A does


@dataclass(frozen=True, eq=False, repr=False)
class Detector(_Knowing):
    """A DETR with its image processor: `Detector.load("runs/mine").detect(["photo.jpg"])`.

    `load_any` takes any model that transformers loads as an object detector.
    """

    model: Any
    processor: Any

    @classmethod
    def load(cls, checkpoint: str) -> Detector:
        """A checkpoint by folder, name on the Hub, or `embedded:NAME`; on the GPU where there is one."""
        model, processor = load_model(checkpoint)
        fold_norms(model)  # the same function, in fewer passes over the pixels
        return cls(_at_home(model), processor)

    @classmethod
    def load_any(cls, checkpoint: str) -> Detector:
        """The same of any family: DETR, its sisters, YOLOS and others, to be evaluated."""
        model, processor = load_detector(checkpoint)
        return cls(_at_home(model), processor)

    @property
    def config(self) -> Any:
        """The model's."""
        return self.model.config

    def detect(self, images: Iterable[Image.Image | str | Path], batch_size: int = 8) -> list[Detections]:
        """The detections of each image, best first: boxes xyxy in pixels of the upright image. `.above(0.5)` filters.

        Raises InputError for a single image or path in the place of a list of them.
        """
        return detect(self.model, self.processor, map(_upright, _several(images)), batch_size)

    def predictions(self, image: Image.Image | str | Path) -> Predictions:
        """What a DETR says of an image at every decoder layer, on the CPU: `logits [L, 1, Q, K+1]`, `boxes [L, 1, Q, 4]`."""
        ((pixels, mask),) = batches_of(self.processor, [_upright(image)], batch_size=1)
        with inference(self.model):  # before the criterion is attached, which hears every answer of the model
            attached = attach_criterion(self.model, _no_loss)
            try:
                device = self.model.device
                nothing = {"class_labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}
                self.model(
                    pixel_values=pixels.to(device, self.model.dtype),
                    pixel_mask=mask.to(device),
                    labels=[{name: value.to(device) for name, value in nothing.items()}],
                )
                assert attached.last is not None
                said = attached.last[0]
            finally:
                attached.detach()
        return replace(said, logits=said.logits.float().cpu(), boxes=said.boxes.float().cpu())


def _at_home(model: Any) -> Any:
    """On the GPU where there is one, its pixels' channels side by side in memory, which convolutions there and here like."""
    return model.to("cuda" if torch.cuda.is_available() else "cpu", memory_format=torch.channels_last).eval()


def _no_loss(predictions: Predictions, targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
    return predictions.boxes.sum() * 0, {}


def _several(
    images: Iterable[Image.Image | str | Path] | Image.Image | str | Path,
) -> Iterable[Image.Image | str | Path]:
    """A string would be read as files of a letter each."""
    if isinstance(images, Image.Image):
        raise InputError("detect takes a list of images: detect([image])")
    if isinstance(images, str | Path):
        raise InputError(
            f"{images}: detect takes a list of images, as in detect([{str(images)!r}]) or detect(Path(folder).glob('*.jpg'))"
        )
    return images


def _upright(image: Image.Image | str | Path) -> Image.Image:
    return upright_rgb(image) if isinstance(image, Image.Image) else open_image(image)
