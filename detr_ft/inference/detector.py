"""Detect objects in images from Python, with a checkpoint."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast, overload

import torch
from PIL import Image
from torch import Tensor

from detr_ft.errors import InputError
from detr_ft.inference.images import ImageInput, check_list, is_image, read_image, read_images
from detr_ft.models.attach import attach_criterion
from detr_ft.models.load import load_detector, load_model
from detr_ft.models.metadata import read_thresholds
from detr_ft.models.optimizations import fused_norms
from detr_ft.models.predict import batches_of, detect, inference
from detr_ft.structures import Detections, Predictions, Targets
from detr_ft.utils.arguments import check_threshold, check_whole_number

_DEFAULT_THRESHOLD = 0.5  # of a class without a measured one


class DetectorBase(ABC):
    """Inputs, class names and thresholds of a detector on any runtime."""

    @property
    @abstractmethod
    def config(self) -> Any:
        """The config of the checkpoint."""

    @abstractmethod
    def _run(self, images: Iterator[Image.Image], batch_size: int) -> list[Detections]:
        """Return the detections of upright RGB images."""

    @property
    def names(self) -> list[str]:
        """The names of the classes, in the order of their indices."""
        return [name for _, name in sorted(self.config.id2label.items())]

    @property
    def thresholds(self) -> dict[str, float]:
        """The score threshold of each class, measured on the validation split; 0.5 if unknown."""
        known = read_thresholds(self.config)
        return {name: known.get(name, _DEFAULT_THRESHOLD) for name in self.names}

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is an Iterable[str], and is one image here
        self, images: ImageInput, threshold: float | None = None, batch_size: int = 8
    ) -> Detections: ...

    @overload
    def __call__(
        self, images: Iterable[ImageInput], threshold: float | None = None, batch_size: int = 8
    ) -> list[Detections]: ...

    def __call__(
        self, images: ImageInput | Iterable[ImageInput], threshold: float | None = None, batch_size: int = 8
    ) -> Detections | list[Detections]:
        """Return the detections of an image above a threshold, best first; a list for a list of images.

        An image is a path, an http(s) URL, a PIL image, a numpy array (uint8, RGB, `[H, W, 3]`), a tensor (`[3, H, W]`,
        uint8, or floats in 0 to 1) or a row of `load_data`. Without `threshold` each class has its own, from `thresholds`.
        Raises InputError with all images that can't be read.
        """
        check_threshold(threshold)
        check_whole_number("batch_size", batch_size, 1)
        if is_image(images):
            return self.filter(self.detect([read_image(images)])[0], threshold)
        several = cast(Iterable[ImageInput], images)
        return [self.filter(detections, threshold) for detections in self.detect(several, batch_size)]

    def detect(self, images: Iterable[ImageInput], batch_size: int = 8) -> list[Detections]:
        """Return all detections of each image, best first: boxes xyxy in pixels of the upright image.

        Takes the images of a call, as a list or generator. Raises InputError for a single image.
        """
        check_whole_number("batch_size", batch_size, 1)
        if is_image(images):
            raise InputError(
                "detect: images must be a list, got a single image. Use detect([image]), or detector(image)."
            )
        check_list(images)
        names = self.names
        return [replace(detections, names=names) for detections in self._run(read_images(images), batch_size)]

    def filter(self, detections: Detections, threshold: float | None = None) -> Detections:
        """Return the detections above a threshold, or without one, above that of their class."""
        check_threshold(threshold)
        if threshold is not None:
            return detections.above(threshold)
        thresholds = self.thresholds
        # By index: a name may occur twice, as N/A of COCO does.
        return detections.above_each([thresholds[name] for name in self.names])


@dataclass(frozen=True, eq=False, repr=False)
class Detector(DetectorBase):
    """A model with its image processor: `Detector.load("runs/mine")("photo.jpg")`."""

    model: Any
    processor: Any

    @classmethod
    def load(cls, checkpoint: str | os.PathLike[str]) -> Detector:
        """Load a checkpoint by folder, name on the Hub, or `embedded:NAME`, onto the GPU if there is one.

        Raises InputError, also for a family that recipes cannot train; see `load_any`.
        """
        model, processor = load_model(checkpoint)
        fused_norms.apply(model)  # the same function in fewer passes over the activations
        return cls(_on_device(model), processor)

    @classmethod
    def load_any(cls, checkpoint: str | os.PathLike[str]) -> Detector:
        """Load any model that transformers loads as an object detector. Raises InputError."""
        model, processor = load_detector(checkpoint)
        return cls(_on_device(model), processor)

    @property
    def config(self) -> Any:
        """The config of the model."""
        return self.model.config

    def predictions(self, image: ImageInput) -> Predictions:
        """Return the predictions of every decoder layer for an image, on the CPU.

        `logits [L, 1, Q, C]` and `boxes [L, 1, Q, 4]`.
        """
        ((pixels, mask),) = batches_of(self.processor, [read_image(image)], batch_size=1)
        with inference(self.model):  # before attaching: the criterion records every forward pass of the model
            attached = attach_criterion(self.model, _zero_loss)
            try:
                device = self.model.device
                label = {"class_labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}
                self.model(
                    pixel_values=pixels.to(device, self.model.dtype),
                    pixel_mask=mask.to(device),
                    labels=[{name: value.to(device) for name, value in label.items()}],
                )
                assert attached.last is not None
                predictions = attached.last[0]
            finally:
                attached.detach()
        return replace(predictions, logits=predictions.logits.float().cpu(), boxes=predictions.boxes.float().cpu())

    def _run(self, images: Iterator[Image.Image], batch_size: int) -> list[Detections]:
        return detect(self.model, self.processor, images, batch_size)


def _on_device(model: Any) -> Any:
    """Move a model to the GPU if there is one, in the memory format that convolutions are fastest with."""
    return model.to("cuda" if torch.cuda.is_available() else "cpu", memory_format=torch.channels_last).eval()


def _zero_loss(predictions: Predictions, targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
    return predictions.boxes.sum() * 0, {}
