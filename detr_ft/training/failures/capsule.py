"""A failure capsule: everything of a step that failed that is needed to take it again elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from detr_ft.criterion.serialization import describe
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.errors import InputError
from detr_ft.structures import StepTotals
from detr_ft.training.checkpoint.state import WEIGHTS, files_of
from detr_ft.training.checkpoint.store import Checkpoints
from detr_ft.training.step import StepError, Stepper
from detr_ft.training.step_loader import MicroBatch

_KEPT = 3
_MOST = 2**30  # bytes of weights that go into a capsule; of a larger model only their SHA-256


def keep_failure(
    folder: Path,
    failed: StepError,
    stepper: Stepper,
    processor: Any,
    criterion: SetCriterion,
    split: Dataset,
    facts: Mapping[str, Any],
) -> str:
    """Write the capsule of the step that failed, and answer what there is to say of it, with its images."""
    taken = failed.taken
    images, accelerator = images_of(failed.share, split), stepper.accelerator
    told = {
        "why": failed.why,
        "images": images,
        "terms": {name: value.item() for name, value in taken.values.items()},
        "epoch": taken.work.epoch,
        "place": taken.work.place,
        "process": accelerator.process_index,
        "seed": stepper.seed,
        "mixed_precision": accelerator.mixed_precision,
        "frozen": [name for name, one in stepper.model.named_parameters() if not one.requires_grad],
        "live_norms": any(isinstance(one, torch.nn.BatchNorm2d) for one in stepper.model.modules()),
        "facts": facts,
    }
    if accelerator.process_index:
        folder = folder / f"process-{accelerator.process_index}"
    try:
        capsule = write_capsule(
            folder, taken.number, failed.share, taken.holds, stepper.model, processor, criterion, told
        )
        after = f"To look into it: detr-ft replay {capsule}"
    except InputError as error:
        after = f"It couldn't be kept to look into it: {error}"
    return f"step {taken.number}, images {in_words(images)}: {failed.why}; {failed.applied}. {after}"


def write_capsule(
    folder: Path,
    number: int,
    share: Sequence[MicroBatch],
    step: StepTotals | None,
    model: Any,
    processor: Any,
    criterion: SetCriterion,
    told: Mapping[str, Any],
) -> Path:
    """Write the capsule of a step into `folder`, whole or not at all, and answer where it is.

    `told` is what it says in words and numbers. Weights are those before the step; running figures of
    norms that learn have seen it, and maybe the next one. Raises InputError where there is no room.
    """
    batches = [{"inputs": micro.inputs, "rows": micro.rows, "counts": micro.counts} for micro in share]
    tensors = {"batches": batches, "step": step and {"images": float(step.images), "labels": step.labels.cpu()}}
    files = files_of(model, processor, tensors, {**told, "step": number, "criterion": describe(criterion)})
    if len(files[WEIGHTS]) > _MOST:
        files[f"{WEIGHTS}.sha256"] = hashlib.sha256(files.pop(WEIGHTS)).hexdigest().encode()
    return Checkpoints(folder, _KEPT).save(number, files)


def images_of(share: Sequence[MicroBatch], split: Dataset) -> list[dict[str, Any]]:
    """The `image_id` and the `file`, where there is one, of each image that counts."""
    rows = [row for micro in share if micro.counts for row in micro.rows]
    held = split.with_format(None).select_columns(["image", "image_id"]).select(rows)
    return [{"image_id": one["image_id"], "file": one["image"]["path"] or ""} for one in held]


def in_words(images: Sequence[Mapping[str, Any]]) -> str:
    """Images for a message: ids, each with its file."""
    return ", ".join(f"{one['image_id']}" + (f" ({one['file']})" if one["file"] else "") for one in images)
