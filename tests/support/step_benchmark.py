"""The median seconds of a forward and backward pass of the embedded checkpoint.   python step_benchmark.py

It measures the machine, so that tests can bound a run in such steps rather than in seconds: the model with the stock loss of
transformers, on 16 images of the quickstart's size, without data loading, our criterion and optimizer.
"""

from __future__ import annotations

import statistics
import time

import torch

from detr_ft.models.freeze import set_trainable
from detr_ft.models.load import load_model


def main(steps: int = 20) -> None:
    torch.manual_seed(0)
    model, _ = load_model("embedded:small")
    set_trainable(model, freeze=[])
    model.to(memory_format=torch.channels_last).train()
    pixels, mask = torch.randn(16, 3, 128, 128), torch.ones(16, 128, 128, dtype=torch.long)
    box = torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.3, 0.3, 0.1, 0.2], [0.7, 0.6, 0.2, 0.2]])
    labels = [{"class_labels": torch.tensor([0, 1, 2]), "boxes": box} for _ in range(16)]
    seconds = []
    for _ in range(steps + 3):
        start = time.perf_counter()
        model(pixel_values=pixels, pixel_mask=mask, labels=labels).loss.backward()
        seconds.append(time.perf_counter() - start)
    print(statistics.median(seconds[3:]))


if __name__ == "__main__":
    main()
