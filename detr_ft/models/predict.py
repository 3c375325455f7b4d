"""From images to detections: the one way in which the toolkit asks a model, for evaluation, prediction and the demo."""

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
from detr_ft.data.pipeline.collate import collate
from detr_ft.data.pipeline.dataset import TrainExamples
from detr_ft.data.pipeline.transforms import ImageFormat, TrainTransform, canvas_of
from detr_ft.errors import InputError
from detr_ft.models.attach import attach_criterion
from detr_ft.models.families.family import Detr
from detr_ft.structures import Detections, Predictions, StepTotals, Targets

# Images wait for others of their size. When so many batches' worth are waiting, the largest group goes ahead unfilled.
_WAITING_BATCHES = 4


# Pixels `[B, 3, H, W]` and their mask `[B, H, W]`, to logits `[B, Q, K+1]` and boxes `[B, Q, 4]`, cxcywh in fractions.
Ask = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_ASKED = RLock()  # by the thread that asks a model just now


@dataclass(frozen=True)
class _Waiting:
    """A processed image `[1, 3, H, W]`, its mask `[1, H, W]`, its place, and its original (width, height)."""

    place: int
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
    """The best `top` detections of each upright RGB image, best first: boxes xyxy in that image's pixels.

    A score is the softmax over classes and no-object of the best class. Images go through the checkpoint's own
    processor. It is padded only where the processor has a `pad_size`, to that; images of one processed size go together,
    so the result does not depend on the batch. `images` may be a generator: only a few batches are held at a time.
    A model of another family is asked image by image, and its processor says what its scores are.
    """
    if not isinstance(model, Detr):
        with inference(model):
            return [_by_its_processor(model, processor, image, top) for image in images]
    with inference(model):
        return detect_by(partial(ask, model), processor, images, batch_size, top)


def detect_by(
    ask: Ask, processor: Any, images: Iterable[Image.Image], batch_size: int = 8, top: int = 100
) -> list[Detections]:
    """The same of anything that answers as a DETR does, whatever runs it."""
    results: dict[int, Detections] = {}
    for group in _groups(processor, images, batch_size):
        for waiting, found in zip(group, _chosen(ask, group, top), strict=True):
            results[waiting.place] = found
    return [results[place] for place in range(len(results))]


def answers(model: Detr, processor: Any, images: Iterable[Image.Image]) -> Iterator[Predictions]:
    """The predictions of the last layer for batches of the images, in no certain order."""
    with inference(model):
        for pixels, mask in batches_of(processor, images, batch_size=8):
            yield Predictions.from_layer(*ask(model, pixels, mask))


def batches_of(processor: Any, images: Iterable[Image.Image], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels `[B, 3, H, W]` and mask `[B, H, W]` of images in groups of one processed size, in no certain order."""
    return (_batch(group) for group in _groups(processor, images, batch_size))


@contextmanager
def inference(model: PreTrainedModel) -> Iterator[None]:
    """The model answers inside, without dropout or gradient, and is then as it was. One thread asks at a time.

    Others would see its mode change under their hands, and hear what hooks tell of an answer that is not theirs.
    """
    with _ASKED:
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            model.train(was_training)


def _groups(processor: Any, images: Iterable[Image.Image], batch_size: int) -> Iterator[list[_Waiting]]:
    """Groups of at most `batch_size` images of one processed size, as soon as they are full."""
    canvas = canvas_of(processor)
    waiting: dict[torch.Size, list[_Waiting]] = defaultdict(list)
    for place, image in enumerate(images):
        try:
            encoded = processor(images=[image], return_tensors="pt", do_pad=canvas is not None)
        except ValueError as error:
            size = f"{image.width}x{image.height}"
            raise InputError(f"an image of {size} pixels is nothing for the checkpoint's processor: {error}") from error
        pixels = encoded["pixel_values"]
        mask = encoded["pixel_mask"] if canvas else torch.ones(1, *pixels.shape[-2:], dtype=torch.long)
        waiting[pixels.shape].append(_Waiting(place, pixels, mask, image.size))
        if len(waiting[pixels.shape]) == batch_size:
            yield waiting.pop(pixels.shape)
        elif sum(map(len, waiting.values())) >= _WAITING_BATCHES * batch_size:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


def _by_its_processor(model: PreTrainedModel, processor: Any, image: Image.Image, top: int) -> Detections:
    """The best detections of another family, as its own processor makes and reads them, image by image."""
    encoded = processor(images=[image], return_tensors="pt").to(model.device)
    outputs = model(**encoded)
    (found,) = processor.post_process_object_detection(
        outputs, threshold=0.0, target_sizes=[(image.height, image.width)]
    )
    order = found["scores"].argsort(descending=True, stable=True)[:top]
    boxes, scores, labels = (found[name][order].float().cpu() for name in ("boxes", "scores", "labels"))
    return Detections(boxes, scores, labels.long())


def _chosen(ask: Ask, group: list[_Waiting], top: int) -> Iterator[Detections]:
    """The best detections of a group: chosen on the device, so that only they travel, all at once."""
    logits, fractions = ask(*_batch(group))
    # Half precision is for the network; scores and pixels deserve the whole.
    scores, labels = (values[0] for values in Predictions.from_layer(logits, fractions).best)
    order = scores.argsort(dim=-1, descending=True, stable=True)[:, :top]
    boxes = to_pixels(fractions.float(), torch.tensor([one.size for one in group]))
    rows = torch.cat([boxes, scores[..., None], labels[..., None].float()], -1)  # labels are exact to 2^24
    chosen = rows.gather(1, order[..., None].expand(-1, -1, 6)).cpu()
    if not chosen.isfinite().all():
        raise InputError("the model answers with boxes or scores that are no numbers (NaN): its weights are damaged")
    for one in chosen:
        yield Detections(one[:, :4], one[:, 4], one[:, 5].long())


def _batch(group: list[_Waiting]) -> tuple[Tensor, Tensor]:
    return torch.cat([one.pixels for one in group]), torch.cat([one.mask for one in group])


def ask(model: Detr, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[B, Q, K+1]` and boxes `[B, Q, 4]` of a batch, on the model's device; with the model bound it is an `Ask`."""
    outputs = model(pixel_values=pixels.to(model.device, model.dtype), pixel_mask=mask.to(model.device))
    return outputs.logits, outputs.pred_boxes


def detect_split(
    model: PreTrainedModel,
    processor: Any,
    split: Dataset,
    batch_size: int = 8,
    progress: Callable[[int], None] | None = None,
) -> list[Detections]:
    """The detections of each row of a split in the schema, in its order; only a few batches are in memory at a time.

    `progress` is told how many images have been taken so far.
    """

    def images() -> Iterator[Image.Image]:
        for number, row in enumerate(split.with_format(None).select_columns(["image"]), start=1):
            yield open_image(row["image"])
            if progress is not None:
                progress(number)

    return detect(model, processor, images(), batch_size)


def predict_split_raw(
    model: Detr, processor: Any, criterion: SetCriterion, split: Dataset, batch_size: int = 8
) -> Iterator[tuple[Predictions, Targets]]:
    """What the model says of a split at all decoder layers, batch by batch, and the truth: what a criterion is given.

    The model has the criterion attached meanwhile, and its stock loss afterwards.
    """
    form = ImageFormat.of(processor)
    examples = TrainExamples(split, TrainTransform(form), seed=0)
    attached = attach_criterion(model, criterion)
    # Constant totals: the loss is not used, and a collective would block where one process predicts alone.
    totals = StepTotals(1.0, torch.ones(model.config.num_labels, device=model.device))
    try:
        with inference(model), attached.step_totals(totals):
            for start in range(0, len(examples), batch_size):
                rows = range(start, min(start + batch_size, len(examples)))
                batch = collate([examples.at(0, row) for row in rows], form.canvas)
                labels = [{name: value.to(model.device) for name, value in one.items()} for one in batch["labels"]]
                pixels = {name: batch[name].to(model.device) for name in ("pixel_values", "pixel_mask")}
                model(**form.normalise(pixels), labels=labels)
                assert attached.last is not None
                yield attached.last
    finally:
        attached.detach()
