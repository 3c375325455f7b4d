"""One step of eight images, split over processes; rank 0 saves loss terms and gradients.   torchrun distributed_step.py OUT

Once with our criterion, once with the stock loss. The split is uneven, and two images have no objects.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as distributed
from torch.nn.parallel import DistributedDataParallel
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

from detr_ft.criterion import detr_criterion
from detr_ft.models.attach import attach_criterion
from detr_ft.models.freeze import set_trainable

IMAGES_PER_PROCESS = {1: [8], 2: [5, 3], 4: [1, 3, 2, 2]}
COUNTS = [3, 0, 1, 2, 4, 1, 0, 2]


def model() -> DetrForObjectDetection:
    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_queries": 9, "num_labels": 5}
    return DetrForObjectDetection(DetrConfig(backbone_config=backbone, **sizes, **heads)).eval()  # without dropout


def images() -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    generator = torch.Generator().manual_seed(1)
    labels = []
    for count in COUNTS:
        center, size = torch.rand(2, count, 2, generator=generator)
        boxes = torch.cat([0.3 + 0.4 * center, 0.1 + 0.4 * size], -1)
        labels.append({"class_labels": torch.randint(5, (count,), generator=generator), "boxes": boxes})
    return torch.randn(len(COUNTS), 3, 32, 32, generator=generator), labels


def step(own: slice, *, own_criterion: bool) -> dict[str, torch.Tensor]:
    """Return the terms of the loss, averaged over processes, and the gradients of all parameters."""
    single = model()
    if own_criterion:
        set_trainable(single, freeze=[])
        attach_criterion(single, detr_criterion())
    else:
        single.config.auxiliary_loss = False
    pixels, labels = images()
    wrapped = DistributedDataParallel(single, find_unused_parameters=True)
    outputs = wrapped(pixel_values=pixels[own], labels=labels[own])
    outputs.loss.backward()
    values = {}
    for name, value in outputs.loss_dict.items():
        whole = value.detach().float().clone()
        distributed.all_reduce(whole)
        values[name] = whole / distributed.get_world_size()
    return values | {name: value.grad for name, value in single.named_parameters() if value.grad is not None}


def main(out: str) -> None:
    distributed.init_process_group("gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    from accelerate import PartialState

    PartialState(cpu=True)  # the stock loss reads the number of processes from accelerate
    torch.set_num_threads(1)
    start = sum(IMAGES_PER_PROCESS[world][:rank])
    own = slice(start, start + IMAGES_PER_PROCESS[world][rank])
    results = {"ours": step(own, own_criterion=True), "stock": step(own, own_criterion=False)}
    if rank == 0:
        torch.save(results, out)
    distributed.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    main(sys.argv[1])
