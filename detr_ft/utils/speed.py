"""Speed and size of a model, as measured by `models` and written to `metrics.json`.

Apart from `environment`, since the schema of `metrics.json` must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Speed:
    """Time from a decoded image to its boxes, warm, on `hardware`.

    `latency` is the median time of one image in milliseconds, with the 10th and 90th percentile beside it; `throughput` the
    images a second in batches of `batch`; `flops` those of one image of `pixels` (height, width), multiplications and
    additions counted apart; `memory` the most that the model allocated on a GPU, in MiB, or None on a CPU.
    """

    hardware: str
    parameters: int
    pixels: tuple[int, int]
    flops: int
    latency: float
    latency_spread: tuple[float, float]
    batch: int
    throughput: float
    memory: int | None
