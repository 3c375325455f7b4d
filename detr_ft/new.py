"""A complete, commented recipe for somebody's data."""

from __future__ import annotations

import logging
import statistics
from pathlib import Path

import torch

from detr_ft.data import class_names, load_data
from detr_ft.data.frame import count_boxes
from detr_ft.errors import UserError

logger = logging.getLogger(__name__)

_TEMPLATE = """\
# {source}: {images} images to train on, {boxes} boxes, {classes} classes ({names}).
#   detr-ft check {out}     reads this file and tries the criterion, in seconds
#   detr-ft train {out}     trains; any value can be given there too: train.learning_rate=5e-5
model:
  checkpoint: {checkpoint}{revision}
  freeze: [{freeze}]   # parts that keep their weights: backbone, backbone.stem, encoder, decoder ...
data:
  source: "{source}"
{box_format}{fraction}  longest_edge: {edge}              # pixels; {edge_reason}
  augment: light                 # flips, gentle crops and colours; also: detr, none
criterion:                       # DETR's own; replace a term by {{use: "mine.py:MyLoss", weight: 1}}
  matcher:
    use: HungarianMatcher
    costs:
      - {{use: ClassCost, weight: 1}}
      - {{use: BoxL1Cost, weight: 5}}
      - {{use: GIoUCost, weight: 2}}
  losses:
    - {{use: CrossEntropyLoss, weight: 1, eos_coef: 0.1}}
    - {{use: BoxL1Loss, weight: 5}}
    - {{use: GIoULoss, weight: 2}}
train:
  output_dir: runs/{stem}
  num_train_epochs: {epochs}           # about {steps} steps; small sets need many epochs
  per_device_train_batch_size: {batch}
  learning_rate: {rate}
  lr_scheduler_type: linear
  warmup_steps: {warmup}
  max_grad_norm: {clip}
  bf16: {bf16}
  dataloader_num_workers: {workers}
  seed: 0
optim:
  backbone_learning_rate: {backbone_rate}   # the backbone knows more, and learns at a lower rate
"""


def write_recipe(source: str, out: Path, checkpoint: str | None, box_format: str | None = None) -> None:
    """Write a recipe for a data set, fitted to its size and to the hardware at hand. Raises UserError.

    `box_format` says how the source writes its boxes, where what `load_data` recognises is not to be trusted.
    """
    if out.exists():
        raise UserError(f"{out} exists, and nothing is written over; choose another name with -o")
    data = load_data(source, box_format=box_format)
    if "train" not in data:
        raise UserError(f"{source}: there is no train split, only {', '.join(data)}")
    train = data["train"]
    gpu = torch.cuda.is_available()
    checkpoint = checkpoint or ("facebook/detr-resnet-50" if gpu else "embedded:small")
    small = checkpoint == "embedded:small"
    batch = 16 if small else 8
    steps = 1500 if small else 6000
    epochs = max(10, min(300, round(steps * batch / len(train))))
    longest = statistics.median(
        max(width, height) for width, height in zip(train["width"], train["height"], strict=True)
    )
    edge = min(256, int(longest)) if small else 800
    text = _TEMPLATE.format(
        source=source,
        images=len(train),
        boxes=count_boxes(train).kept,
        classes=len(class_names(train)),
        names=", ".join(class_names(train)[:12]) + (" ..." if len(class_names(train)) > 12 else ""),
        out=out,
        checkpoint=checkpoint,
        revision="\n  revision: no_timm" if checkpoint.startswith("facebook/detr-") else "",
        freeze="" if small else "backbone.stem, backbone.stage1",
        box_format=f"  box_format: {box_format}\n" if box_format else "",
        fraction="" if "validation" in data else "  validation_fraction: 0.15      # there is no validation split\n",
        edge=max(64, edge),
        edge_reason="larger finds smaller objects and takes longer"
        + ("" if small else "; the checkpoint's own is 800"),
        stem=out.stem,
        epochs=epochs,
        steps=epochs * max(1, len(train) // batch),
        batch=batch,
        rate="4.0e-4" if small else "1.0e-4",
        backbone_rate="4.0e-4" if small else "1.0e-5",
        warmup=50 if small else 200,
        clip=0.5 if small else 0.1,
        bf16=str(gpu).lower(),
        workers=4 if gpu else 0,
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror or error}") from error
    logger.info("%s is written, to start from %s: look through it, then: detr-ft train %s", out, checkpoint, out)
