"""How fast and how large a model is, on the hardware at hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from detr_ft.models.predict import detect, inference
from detr_ft.utils.speed import Speed

_SECONDS = 1.0  # of measuring, each for one image and for many
_LEAST, _WARM = 5, 2  # rounds


def measure(model: PreTrainedModel, processor: Any, images: Sequence[Image.Image], batch: int, hardware: str) -> Speed:
    """Measure a model on a few images of the kind it is made for; takes some seconds."""
    on_gpu = model.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    alone = _rounds(lambda turn: _timed(model, processor, [images[turn % len(images)]], 1))
    many = [images[turn % len(images)] for turn in range(batch)]
    together = _rounds(lambda turn: _timed(model, processor, many, batch))
    low, median, high = (1000 * np.quantile(alone, [0.1, 0.5, 0.9])).tolist()
    pixels, flops = _flops(model, processor, images[0])
    return Speed(
        hardware,
        sum(parameter.numel() for parameter in model.parameters()),
        pixels,
        flops,
        median,
        (low, high),
        batch,
        batch / float(np.median(together)),
        torch.cuda.max_memory_reserved() // 2**20 if on_gpu else None,
    )


def _rounds(timed: Any) -> list[float]:
    for turn in range(_WARM):
        timed(turn)
    spent: list[float] = []
    while len(spent) < _LEAST or sum(spent) < _SECONDS:
        spent.append(timed(len(spent)))
    return spent


def _timed(model: PreTrainedModel, processor: Any, images: list[Image.Image], batch: int) -> float:
    began = time.perf_counter()
    detect(model, processor, images, batch)  # answers on the CPU, so the device has finished
    return time.perf_counter() - began


def _flops(model: PreTrainedModel, processor: Any, image: Image.Image) -> tuple[tuple[int, int], int]:
    pixels = processor(images=[image], return_tensors="pt")["pixel_values"].to(model.device, model.dtype)
    counter = FlopCounterMode(display=False)
    # Without its inference mode, in which the counter looks for gradients that aren't there.
    with inference(model), torch.inference_mode(False), torch.no_grad(), counter:
        model(pixel_values=pixels)
    height, width = pixels.shape[-2:]
    return (height, width), counter.get_total_flops()
