"""From images to detections: the one way in which the toolkit asks a model, for evaluation, prediction and the demo."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from detr_ft.boxes import cxcywh_to_xyxy
from detr_ft.data.transforms import canvas_of
from detr_ft.errors import UserError
from detr_ft.models.family import Detr
from detr_ft.structures import Detections

# Images wait for others of their size. When so many batches' worth are waiting, the largest group goes ahead unfilled.
_WAITING_BATCHES = 4


@dataclass(frozen=True)
class _Waiting:
    """A processed image `[1, 3, H, W]`, its mask `[1, H, W]`, its place, and its original (height, width)."""

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
    results: dict[int, Detections] = {}
    with inference(model):
        for group in _groups(processor, images, batch_size):
            for waiting, found in zip(group, _forward(model, group, top), strict=True):
                results[waiting.place] = found
    return [results[place] for place in range(len(results))]


def answers(model: Detr, processor: Any, images: Iterable[Image.Image]) -> Iterator[Tensor]:
    """The logits `[Q, K+1]` of each image, in no certain order."""
    with inference(model):
        for group in _groups(processor, images, batch_size=8):
            yield from _ask(model, group).logits.float()


@contextmanager
def inference(model: PreTrainedModel) -> Iterator[None]:
    """The model answers inside, without dropout or gradient, and is then as it was."""
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
            raise UserError(f"an image of {size} pixels is nothing for the checkpoint's processor: {error}") from error
        pixels = encoded["pixel_values"]
        mask = encoded["pixel_mask"] if canvas else torch.ones(1, *pixels.shape[-2:], dtype=torch.long)
        waiting[pixels.shape].append(_Waiting(place, pixels, mask, (image.height, image.width)))
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


def _forward(model: Detr, group: list[_Waiting], top: int) -> Iterator[Detections]:
    """The best detections of a group: chosen on the device, so that only they travel, all at once."""
    outputs = _ask(model, group)
    # Half precision is for the network; scores and pixels deserve the whole.
    scores, labels = outputs.logits.float().softmax(-1)[..., :-1].max(-1)
    order = scores.argsort(dim=-1, descending=True, stable=True)[:, :top]
    sides = torch.tensor([(width, height, width, height) for height, width in (one.size for one in group)])
    boxes = cxcywh_to_xyxy(outputs.pred_boxes.float()) * sides[:, None].to(model.device)
    rows = torch.cat([boxes, scores[..., None], labels[..., None].float()], -1)  # labels are exact to 2^24
    for one in rows.gather(1, order[..., None].expand(-1, -1, 6)).cpu():
        yield Detections(one[:, :4], one[:, 4], one[:, 5].long())


def _ask(model: Detr, group: list[_Waiting]) -> Any:
    pixels = torch.cat([one.pixels for one in group]).to(model.device, model.dtype)
    return model(pixel_values=pixels, pixel_mask=torch.cat([one.mask for one in group]).to(model.device))
