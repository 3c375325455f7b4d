"""A complete, commented recipe for somebody's data, each choice with its reason."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from datasets import Dataset, DatasetDict

from detr_ft.data import class_names, load_data
from detr_ft.data.box_frame import count_boxes
from detr_ft.data.doctor.advice import advise, enough_queries
from detr_ft.data.doctor.statistics import Figures, figures_of
from detr_ft.data.pipeline.sampling import balanced_weights
from detr_ft.errors import InputError
from detr_ft.models.load import queries_of
from detr_ft.utils.files import check_new_file, writing

logger = logging.getLogger(__name__)

_SMALL = "embedded:small"
# What a step of DETR-ResNet-50 takes on top of the model for an image of 800 x 800, in GiB: tests/benchmarks/step_memory.py.
_PER_IMAGE = 0.41
_FEW, _MANY = 100, 1_000  # images

_TEMPLATE = """\
# {source}: {images} images to train on, {boxes} boxes, {classes} classes ({names}).
#   detr-ft check {out}     reads this file and tries the criterion, in seconds
#   detr-ft train {out}     trains; any value can be given there too: train.learning_rate=5e-5
{advice}model:
  checkpoint: {start.checkpoint}{revision}
  freeze: [{start.freeze}]   # {start.why_freeze}
data:
  source: "{source}"
{box_format}{fraction}  longest_edge: {edge}              # pixels; {edge_reason}
  augment: {augment}                 # {augment_reason}; also: none, light, detr, strong
{repeat}criterion:                       # DETR's own; replace a term by {{use: "mine.py:MyLoss", weight: 1}}
  matcher:
    use: HungarianMatcher
    costs:
      - {{use: ClassCost, weight: 1}}
      - {{use: BoxL1Cost, weight: 5}}
      - {{use: GIoUCost, weight: 2}}
  losses:
    - {{use: CrossEntropyLoss, weight: 1, eos_coef: 0.1}}{class_weights}
    - {{use: BoxL1Loss, weight: 5}}
    - {{use: GIoULoss, weight: 2}}
train:
  output_dir: runs/{stem}
  num_train_epochs: {epochs}           # about {steps} steps; small sets need many epochs
  per_device_train_batch_size: {batch}   # {batch_reason}
  learning_rate: {start.rate}
  lr_scheduler_type: linear
  warmup_steps: {start.warmup}
  max_grad_norm: {start.clip}
  bf16: {bf16}
  dataloader_num_workers: {workers}
  seed: 0
optim:
  backbone_learning_rate: {start.backbone_rate}   # {start.why_backbone_rate}
"""


@dataclass(frozen=True)
class _Start:
    """Where training starts from, and what goes with it."""

    checkpoint: str
    freeze: str
    why_freeze: str
    rate: str
    backbone_rate: str
    why_backbone_rate: str
    steps: int
    warmup: int
    clip: float

    @property
    def revision(self) -> str | None:
        """That of the authors' checkpoints whose backbone needs no timm."""
        return "no_timm" if self.checkpoint.startswith("facebook/detr-") else None


def write_recipe(source: str, out: Path, checkpoint: str | None, box_format: str | None = None) -> None:
    """Write a recipe for a data set, fitted to its figures and to the hardware at hand. Raises InputError.

    `box_format` says how the source writes its boxes, where what `load_data` recognises is not to be trusted.
    """
    check_new_file(out, "Choose another name with -o.")
    data = load_data(source, box_format=box_format)
    if "train" not in data:
        raise InputError(f"{source}: there is no train split, only {', '.join(data)}")
    text = _fill(data, source, out, checkpoint, box_format)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    logger.info("%s is written: look through it, then: detr-ft train %s", out, out)


def _fill(data: DatasetDict, source: str, out: Path, checkpoint: str | None, box_format: str | None) -> str:
    train, gpu = data["train"], torch.cuda.is_available()
    figures = {split: figures_of(rows) for split, rows in data.items()}
    advice = {one.topic: one for one in advise(figures)}
    start = _start(checkpoint or ("facebook/detr-resnet-50" if gpu else _SMALL), len(train))
    own = queries_of(start.checkpoint, start.revision)
    if own is not None:
        advice["num_queries"] = enough_queries(figures, own)
    edge, edge_reason = _edge(start, figures["train"], advice["longest_edge"].value or 800)
    batch, batch_reason = _batch(start, edge, gpu)
    epochs = max(10, min(300, round(start.steps * batch / len(train))))
    names = class_names(train)
    topics = ["num_queries", *([] if start.checkpoint == _SMALL else ["expectation"]), "few boxes", "rare classes"]
    told = [advice[topic].text for topic in topics if topic in advice]
    augment = "light" if len(train) < _MANY else "detr"
    return _TEMPLATE.format(
        source=source,
        images=len(train),
        boxes=count_boxes(train).kept,
        classes=len(names),
        names=", ".join(names[:12]) + (" ..." if len(names) > 12 else ""),
        out=out,
        advice="".join(f"# {text}\n" for text in told),
        start=start,
        revision=f"\n  revision: {start.revision}" if start.revision else "",
        box_format=f"  box_format: {box_format}\n" if box_format else "",
        fraction="" if "validation" in data else "  validation_fraction: 0.15      # there is no validation split\n",
        edge=edge,
        edge_reason=edge_reason,
        augment=augment,
        augment_reason="flips, gentle crops and colours: a small set" if augment == "light" else "as the paper does",
        repeat=_repeat(figures["train"]) if "rare classes" in advice else "",
        class_weights=_class_weights(train) if "rare classes" in advice else "",
        stem=out.stem,
        epochs=epochs,
        steps=epochs * math.ceil(len(train) / batch),
        batch=batch,
        batch_reason=batch_reason,
        bf16=str(gpu).lower(),
        workers=min(8, os.cpu_count() or 1) if gpu else 0,
    )


def _start(checkpoint: str, images: int) -> _Start:
    if checkpoint == _SMALL:
        why = "nothing: it has seen drawings alone, so all of it has to learn"
        return _Start(checkpoint, "", why, "4.0e-4", "4.0e-4", "as everything else", 1500, 50, 0.5)
    freeze, why = "backbone.stem, backbone.stage1", "parts that keep their weights, as in the paper"
    backbone_rate, why_rate = "1.0e-5", "the backbone knows more, and learns at a lower rate"
    if images < _FEW:
        freeze, why = "backbone", f"under {_FEW} images teach a backbone nothing new"
        backbone_rate, why_rate = "null", "the backbone is frozen"
    return _Start(checkpoint, freeze, why, "1.0e-4", backbone_rate, why_rate, 6000, 200, 0.1)


def _edge(start: _Start, figures: Figures, advised: int) -> tuple[int, str]:
    """Pixels, and why: what the doctor advises, within what the checkpoint was trained on."""
    share = figures.shorter_share.tenth
    seen = "" if not share else "; nine boxes in ten then have a shorter side of {:.0f} pixels or more"
    if start.checkpoint == _SMALL:
        edge = min(256, max(advised, 128), max(64, int(figures.longest_side.median) or 256))
        return edge, "larger finds smaller objects and takes longer" + seen.format(share * edge)
    edge = max(800, advised)
    return edge, ("the checkpoint's own is 800" if edge == 800 else "more than the checkpoint's own") + seen.format(
        share * edge
    )


def _batch(start: _Start, edge: int, gpu: bool) -> tuple[int, str]:
    """Images of a step, and why: a power of two that half of the free memory holds, 16 at the most."""
    if start.checkpoint == _SMALL:
        return 16, "a small model: memory is no matter"
    free = torch.cuda.mem_get_info()[0] if gpu else psutil.virtual_memory().available
    image = _PER_IMAGE * (edge / 800) ** 2
    fitting = max(1, int(free / 2**30 / 2 / image))
    return min(
        16, 2 ** (fitting.bit_length() - 1)
    ), f"an image takes about {image:.1f} GiB at this size, of {free / 2**30:.0f} free"


def _repeat(figures: Figures) -> str:
    holding = sorted(count for count in figures.images_per_class.values() if count)
    threshold = holding[len(holding) // 2] / figures.images
    return (
        f"  repeat_threshold: {threshold:.2g}         # images of classes rarer than the median class come more often\n"
    )


def _class_weights(train: Dataset) -> str:
    weights = ", ".join(f"{weight:.2g}" for weight in balanced_weights(train))
    return f"   # or weigh rare classes: class_weights: [{weights}]"
