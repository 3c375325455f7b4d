"""Speed and size of a model on this machine, and the agreement of several runtimes of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from detr_ft.models.families import Family
from detr_ft.models.predict import Forward, batches_of, detect, inference
from detr_ft.utils.environment import peak_memory_mib, reset_peak_memory, time_calls
from detr_ft.utils.speed import Speed

RUNTIMES = {"pytorch": "PyTorch", "onnx": "ONNX Runtime", "int8": "ONNX Runtime, 8 bits", "torch": "torch.export"}
_SPEED_SECONDS = 1.0  # of timing, each for one image and for a batch
_RUNTIME_SECONDS = 3.0  # of timing each runtime


@dataclass(frozen=True)
class Agreement:
    """The largest difference of a probability and of a box coordinate (in fractions) over some images."""

    images: int
    probability: float
    box: float


def measure(model: PreTrainedModel, processor: Any, images: Sequence[Image.Image], batch: int, hardware: str) -> Speed:
    """Measure a model on a few images of its domain; takes some seconds."""
    reset_peak_memory()
    many = [images[index % len(images)] for index in range(batch)]
    # Detections are on the CPU, so a call ends after the device has finished.
    turns = cycle(images)
    single = time_calls({"single": lambda: detect(model, processor, [next(turns)], 1)}, _SPEED_SECONDS)["single"]
    batches = time_calls({"batch": lambda: detect(model, processor, many, batch)}, _SPEED_SECONDS)["batch"]
    low, median, high = (1000 * np.quantile(single, [0.1, 0.5, 0.9])).tolist()
    pixels, flops = _flops(model, processor, images[0])
    return Speed(
        hardware,
        sum(parameter.numel() for parameter in model.parameters()),
        pixels,
        flops,
        median,
        (low, high),
        batch,
        batch / float(np.median(batches)),
        peak_memory_mib() if model.device.type == "cuda" else None,
    )


@torch.inference_mode()
def compare_runtimes(
    reference: Forward, other: Forward, family: Family, processor: Any, images: Sequence[Image.Image]
) -> Agreement:
    """Return the largest differences between the outputs of two runtimes; NaN counts as the largest."""
    probabilities, boxes = [torch.zeros(())], [torch.zeros(())]
    for pixels, mask in batches_of(processor, images, batch_size=4):
        first, second = (family.final(*run(pixels, mask)) for run in (reference, other))
        probabilities.append(_largest(first.probabilities - second.probabilities))
        boxes.append(_largest(first.boxes - second.boxes))
    return Agreement(len(images), float(torch.stack(probabilities).max()), float(torch.stack(boxes).max()))


@torch.inference_mode()
def latencies(runtimes: Mapping[str, Forward], processor: Any, image: Image.Image) -> dict[str, dict[str, float]]:
    """Return milliseconds per processed image of each runtime.

    `median`, `low` and `high` are the 50th, 10th and 90th percentile. The runtimes take turns, so that other load on
    the machine slows all of them alike.
    """
    ((pixels, mask),) = batches_of(processor, [image], batch_size=1)
    seconds = time_calls({name: partial(run, pixels, mask) for name, run in runtimes.items()}, _RUNTIME_SECONDS)
    quantiles = {name: (1000 * np.quantile(values, [0.1, 0.5, 0.9])).tolist() for name, values in seconds.items()}
    return {name: {"median": median, "low": low, "high": high} for name, (low, median, high) in quantiles.items()}


def _largest(difference: Tensor) -> Tensor:
    return difference.abs().max()


def _flops(model: PreTrainedModel, processor: Any, image: Image.Image) -> tuple[tuple[int, int], int]:
    pixels = processor(images=[image], return_tensors="pt")["pixel_values"].to(model.device, model.dtype)
    counter = FlopCounterMode(display=False)
    # The counter reads gradient functions, which tensors of inference mode lack, and views of trained parameters too.
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with inference(model), torch.inference_mode(False), torch.no_grad(), counter:
        try:
            model.requires_grad_(False)
            model(pixel_values=pixels)
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
    height, width = pixels.shape[-2:]
    return (height, width), counter.get_total_flops()
