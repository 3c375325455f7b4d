"""Evaluate a model on a split, on one process or many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset

from detr_ft.evaluation.coco import coco_metrics
from detr_ft.models.predict import detect_split
from detr_ft.structures import Detections


def evaluate_split(
    accelerator: Accelerator,
    model: Any,
    processor: Any,
    split: Dataset,
    batch_size: int,
    progress: Callable[[int], None] = lambda done: None,
    look_up: Callable[[], object] = lambda: None,
) -> tuple[dict[str, Any], list[Detections]]:
    """COCO figures and detections of every image of the split, each seen by exactly one process.

    Plain records are gathered rather than padded tensors, so ragged and empty shares are no special case. `look_up` is
    called with every batch, equally often on all processes, which may ask each other there, and raise.
    """
    processes, rank = accelerator.num_processes, accelerator.process_index
    mine = split.select(range(rank, len(split), processes))
    rounds = -(-len(split) // (processes * batch_size))

    def taken(images: int) -> None:
        progress(images)
        if images % batch_size == 0:
            look_up()

    found = detect_split(model, processor, mine, batch_size, taken)
    for _ in range(len(mine) // batch_size, rounds):
        look_up()
    if processes > 1:
        shares = gather_object([(rank, found)])
        by_rank = dict(shares)
        found = [by_rank[index % processes][index // processes] for index in range(len(split))]
    return coco_metrics(split, found), found
