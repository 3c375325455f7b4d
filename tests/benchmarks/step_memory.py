"""Memory that an image adds to a training step of DETR-ResNet-50, fp32, on the CPU (Linux).   python tests/benchmarks/step_memory.py

Steps of one and of two images of random weights at 800 x 800, the backbone's stem and first stage frozen, each in a
process of its own; the difference of their peaks is what an image costs, the rest is the model with its gradients and
moments.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from tables import Tables, parser_of
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

from detr_ft.criterion import detr_criterion
from detr_ft.models.attach import attach_criterion
from detr_ft.models.freeze import set_trainable


def step(images: int, edge: int) -> None:
    torch.manual_seed(0)
    backbone = ResNetConfig(out_features=["stage4"])
    model = DetrForObjectDetection(DetrConfig(backbone_config=backbone, num_labels=20))
    set_trainable(model, ["backbone.stem", "backbone.stage1"])
    attach_criterion(model, detr_criterion())
    optimizer = torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)
    box = torch.tensor([[0.5, 0.5, 0.2, 0.3]])
    labels = [{"class_labels": torch.tensor([1]), "boxes": box} for _ in range(images)]
    for _ in range(2):
        model.train()(pixel_values=torch.randn(images, 3, edge, edge), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def peak_gib(images: int, edge: int) -> float:
    command = [sys.executable, "-W", "ignore", __file__, "--images", str(images), "--edge", str(edge)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--edge", type=int, default=800)
    arguments = parser.parse_args()
    if arguments.images:
        step(arguments.images, arguments.edge)
        peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
        print(int(peak) / 2**20)
        return
    tables = Tables(arguments.json)
    one, two = (peak_gib(images, arguments.edge) for images in (1, 2))
    tables.begin({"pixels": "", "an image, GiB": ".2f", "everything else, GiB": ".2f"})
    tables.row(f"{arguments.edge} x {arguments.edge}", two - one, 2 * one - two)


if __name__ == "__main__":
    main()
