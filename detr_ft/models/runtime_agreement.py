"""One model on several runtimes: how far apart their answers are, and how long each takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from detr_ft.models.predict import Ask, batches_of
from detr_ft.structures import Predictions

RUNTIMES = {"pytorch": "PyTorch", "onnx": "ONNX Runtime", "int8": "ONNX Runtime, 8 bits", "torch": "torch.export"}
_SECONDS, _LEAST = 3.0, 5  # of timing for each runtime, and rounds


@dataclass(frozen=True)
class Agreement:
    """The largest difference of a probability, and of a side of a box in fractions of the image, over some images."""

    images: int
    probability: float
    box: float


@torch.inference_mode()
def compare(one: Ask, other: Ask, processor: Any, images: Sequence[Image.Image]) -> Agreement:
    """How far apart the answers of two are on some images."""
    probabilities, sides = [torch.zeros(())], [torch.zeros(())]
    for pixels, mask in batches_of(processor, images, batch_size=4):
        ours, theirs = (Predictions.from_layer(*ask(pixels, mask)) for ask in (one, other))
        probabilities.append((ours.probabilities - theirs.probabilities).abs().max())
        sides.append((ours.boxes - theirs.boxes).abs().max())
    return Agreement(
        len(images), *(float(torch.stack(one).max()) for one in (probabilities, sides))
    )  # NaN is the largest


@torch.inference_mode()
def latencies(asks: Mapping[str, Ask], processor: Any, image: Image.Image) -> dict[str, dict[str, float]]:
    """Milliseconds for one image, processed already, on each in turn: what slows the machine meanwhile slows all."""
    ((pixels, mask),) = batches_of(processor, [image], batch_size=1)
    timed: dict[str, Callable[[], object]] = {kind: partial(ask, pixels, mask) for kind, ask in asks.items()}
    spent: dict[str, list[float]] = {kind: [] for kind in timed}
    for call in timed.values():
        call()
    began = time.perf_counter()
    while len(spent["pytorch"]) < _LEAST or time.perf_counter() - began < _SECONDS * len(timed):
        for kind, call in timed.items():
            start = time.perf_counter()
            call()
            spent[kind].append(1000 * (time.perf_counter() - start))
    quantiles = {kind: np.quantile(values, [0.1, 0.5, 0.9]).tolist() for kind, values in spent.items()}
    return {kind: {"median": median, "low": low, "high": high} for kind, (low, median, high) in quantiles.items()}
