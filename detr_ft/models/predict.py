"""Detect objects in images: the forward pass of evaluation, prediction, reports and demo."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from detr_ft.criterion import SetCriterion
from detr_ft.data.box_frame import to_pixels
from detr_ft.data.images import open_image
from detr_ft.data.pipeline.dataset import TrainDataset, TrainTransform, collate
from detr_ft.data.pipeline.image_format import ImageFormat, canvas_of
from detr_ft.errors import InputError
from detr_ft.models.attach import attach_criterion
from detr_ft.models.families import Family, family_of, find_family
from detr_ft.structures import Detections, Predictions, StepTotals, Targets
from detr_ft.utils.parallel import LimitedReads, name_of

# An image waits for others of its processed size. If this many batches are waiting, the largest group is not filled.
_MAX_WAITING_BATCHES = 4

# Pixels `[B, 3, H, W]` and mask `[B, H, W]` to logits `[B, Q, C]` and boxes `[B, Q, 4]`, cxcywh in fractions.
Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

# Inference switches the mode of a model and reads its hooks, so only one thread may run it at a time.
_INFERENCE_LOCK = RLock()


@dataclass(frozen=True)
class _ProcessedImage:
    """Pixels `[1, 3, H, W]`, mask `[1, H, W]`, index among all images, and original (width, height)."""

    index: int
    pixels: Tensor
    mask: Tensor
    size: tuple[int, int]


def detect(
    model: PreTrainedModel,
    processor: Any,
    images: Iterable[Image.Image],
    batch_size: int = 8,
    top: int = 100,
) -> list[Detections]:
    """Return the best `top` detections of each upright RGB image, best first.

    Boxes are xyxy in pixels of that image. Images are processed by the checkpoint's own processor and padded only to
    its `pad_size`, if it has one. Images of one processed size are batched, so the result does not depend on the batch.
    `images` may be a generator: only a few batches are in memory at a time. A model of another family, or without a
    pixel mask, runs image by image, and its processor computes the detections.
    """
    family = find_family(model)
    with inference(model):
        if family is None or family.images == "unmasked":
            return [_detect_by_processor(model, processor, image, top) for image in images]
        return detect_by(partial(forward, model), family, processor, images, batch_size, top)


def detect_by(
    run: Forward, family: Family, processor: Any, images: Iterable[Image.Image], batch_size: int = 8, top: int = 100
) -> list[Detections]:
    """Return detections as `detect` does, with the forward pass of any runtime."""
    results: dict[int, Detections] = {}
    for group in _groups(processor, images, batch_size):
        for image, detections in zip(group, _detect_group(run, family, group, top), strict=True):
            results[image.index] = detections
    return [results[index] for index in range(len(results))]


def forward(model: PreTrainedModel, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Run a batch on the model's device; with the model bound it is a `Forward`."""
    outputs = model(pixel_values=pixels.to(model.device, model.dtype), pixel_mask=mask.to(model.device))
    return outputs.logits, outputs.pred_boxes


def final_predictions(model: PreTrainedModel, processor: Any, images: Iterable[Image.Image]) -> Iterator[Predictions]:
    """Yield the predictions of the last layer for batches of the images, not in order."""
    family = family_of(model)
    with inference(model):
        for pixels, mask in batches_of(processor, images, batch_size=8):
            yield family.final(*forward(model, pixels, mask))


def batches_of(processor: Any, images: Iterable[Image.Image], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pixels `[B, 3, H, W]` and mask `[B, H, W]` of images of one processed size, not in order."""
    return (_batch(group) for group in _groups(processor, images, batch_size))


def size_problem(processor: Any, width: int, height: int) -> str:
    """Return why an image of this size can't be resized for the model; an empty text if it can."""
    try:
        form = ImageFormat.of(processor)
    except InputError:  # resizes without preserving the aspect ratio, for which no image is too thin
        return ""
    try:
        form.resized(width, height)
    except InputError:
        return f"{width}x{height} pixels are too thin: resized for the model, a side is 0 pixels. Crop the image"
    return ""


@contextmanager
def inference(model: PreTrainedModel) -> Iterator[None]:
    """Run the model without dropout and gradient, one thread at a time, and restore its mode."""
    with _INFERENCE_LOCK:
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            model.train(was_training)


def detect_split(
    model: PreTrainedModel,
    processor: Any,
    split: Dataset,
    batch_size: int = 8,
    progress: Callable[[int], None] | None = None,
) -> list[Detections]:
    """Return the detections of each row of a split in the schema, in its order.

    Only a few batches are in memory at a time. `progress` is called with the number of images read. Raises InputError for
    an image that can't be read, or takes two minutes.
    """

    def images() -> Iterator[Image.Image]:
        with LimitedReads() as read:
            for number, row in enumerate(split.with_format(None).select_columns(["image"]), start=1):
                yield read(partial(open_image, row["image"]), name_of(number - 1, row))
                if progress is not None:
                    progress(number)

    return detect(model, processor, images(), batch_size)


def predict_split_raw(
    model: PreTrainedModel, processor: Any, criterion: SetCriterion, split: Dataset, batch_size: int = 8
) -> Iterator[tuple[Predictions, Targets]]:
    """Yield the predictions of all decoder layers on a split, and its targets, batch by batch.

    The criterion is attached to the model meanwhile; its stock loss is restored afterwards.
    """
    form = ImageFormat.of(processor)
    examples = TrainDataset(split, TrainTransform(form), seed=0)
    attached = attach_criterion(model, criterion)
    # Any totals do, because the loss is not used; without them the processes would have to communicate.
    totals = StepTotals(1.0, torch.ones(model.config.num_labels, device=model.device))
    try:
        with inference(model), attached.step_totals(totals), LimitedReads() as read:
            for start in range(0, len(examples), batch_size):
                rows = range(start, min(start + batch_size, len(examples)))
                batch = collate([read(partial(examples.at, 0, row), name_of(row, None)) for row in rows], form.canvas)
                labels = [{name: value.to(model.device) for name, value in label.items()} for label in batch["labels"]]
                pixels = {name: batch[name].to(model.device) for name in ("pixel_values", "pixel_mask")}
                model(**form.normalize(pixels), labels=labels)
                assert attached.last is not None
                yield attached.last
    finally:
        attached.detach()


def _groups(processor: Any, images: Iterable[Image.Image], batch_size: int) -> Iterator[list[_ProcessedImage]]:
    """Yield groups of at most `batch_size` images of one processed size, as soon as they are full."""
    canvas = canvas_of(processor)
    waiting: dict[torch.Size, list[_ProcessedImage]] = defaultdict(list)
    for index, image in enumerate(images):
        try:
            encoded = processor(images=[image], return_tensors="pt", do_pad=canvas is not None)
        except ValueError as error:
            reason = (
                size_problem(processor, image.width, image.height) or "cannot be processed for the model. Leave it out"
            )
            raise InputError(f"image {index}: {reason}") from error
        pixels = encoded["pixel_values"]
        mask = encoded["pixel_mask"] if canvas else torch.ones(1, *pixels.shape[-2:], dtype=torch.long)
        waiting[pixels.shape].append(_ProcessedImage(index, pixels, mask, image.size))
        if len(waiting[pixels.shape]) == batch_size:
            yield waiting.pop(pixels.shape)
        elif sum(map(len, waiting.values())) >= _MAX_WAITING_BATCHES * batch_size:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


def _detect_by_processor(model: PreTrainedModel, processor: Any, image: Image.Image, top: int) -> Detections:
    """Return the best detections of an image as the processor of the checkpoint computes them."""
    encoded = processor(images=[image], return_tensors="pt").to(model.device)
    outputs = model(**encoded)
    (result,) = processor.post_process_object_detection(
        outputs, threshold=0.0, target_sizes=[(image.height, image.width)]
    )
    order = result["scores"].argsort(descending=True, stable=True)[:top]
    boxes, scores, labels = (result[name][order].float().cpu() for name in ("boxes", "scores", "labels"))
    return Detections(boxes, scores, labels.long())


def _detect_group(run: Forward, family: Family, group: list[_ProcessedImage], top: int) -> Iterator[Detections]:
    """Yield the best detections of each image, selected on the device and copied to the host together."""
    logits, fractions = run(*_batch(group))
    # Half precision is for the network; scores and pixels are computed in fp32.
    scores, labels, queries = family.top_detections(family.final(logits, fractions), top)
    boxes = to_pixels(fractions.float(), torch.tensor([image.size for image in group]))
    boxes = boxes.gather(1, queries[..., None].expand(-1, -1, 4))
    rows = torch.cat([boxes, scores[..., None], labels[..., None].float()], -1).cpu()  # labels are exact to 2^24
    if not rows.isfinite().all():
        raise InputError(
            "the model predicts NaN boxes or scores: its weights may be corrupted. Use another checkpoint."
        )
    for row in rows:
        yield Detections(row[:, :4], row[:, 4], row[:, 5].long())


def _batch(group: list[_ProcessedImage]) -> tuple[Tensor, Tensor]:
    return torch.cat([image.pixels for image in group]), torch.cat([image.mask for image in group])
