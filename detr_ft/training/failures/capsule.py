"""Failure capsules: everything of a failed step that is needed to repeat it on another machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from detr_ft.criterion.serialization import describe
from detr_ft.errors import InputError
from detr_ft.training.checkpoint.state import WEIGHTS, files_of
from detr_ft.training.checkpoint.store import Checkpoints
from detr_ft.training.step import StepError, Stepper
from detr_ft.training.step_loader import MicroBatch

WEIGHTS_DIGEST = f"{WEIGHTS}.sha256"  # in the capsule of a large model, which has no weights
_MAX_CAPSULES = 3
_MAX_WEIGHT_BYTES = 2**30  # of a larger model the capsule has only the SHA-256


def record_failure(
    folder: Path, failure: StepError, stepper: Stepper, processor: Any, split: Dataset, facts: Mapping[str, Any]
) -> str:
    """Write the capsule of a failed step and return a message with its reason and its images.

    Weights are those before the step; running statistics of live norms include it, and possibly the next one.
    """
    images = images_of(failure.micro_batches, split)
    try:
        after = f"Locate the cause: detr-ft replay {_write(folder, failure, stepper, processor, images, facts)}"
    except Exception as error:  # noqa: BLE001 - a full disk, or a device that no longer works, must not hide the failure
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        after = f"Its capsule could not be written: {reason}"
    return (
        f"step {failure.attempt.number}, images {describe_images(images)}: {failure.reason}; {failure.applied}. {after}"
    )


def _write(
    folder: Path, failure: StepError, stepper: Stepper, processor: Any, images: list[dict[str, Any]], facts: Mapping[str, Any]
) -> Path:  # fmt: skip
    """Write a capsule and return its folder."""
    attempt, process = failure.attempt, stepper.accelerator.process_index
    state = {
        "why": failure.reason,
        "images": images,
        "terms": {name: value.item() for name, value in attempt.terms.items()},
        "epoch": attempt.batch.epoch,
        "place": attempt.batch.index,
        "process": process,
        "seed": stepper.settings.seed,
        "mixed_precision": stepper.accelerator.mixed_precision,
        "frozen": [name for name, parameter in stepper.model.named_parameters() if not parameter.requires_grad],
        "live_norms": any(isinstance(module, torch.nn.BatchNorm2d) for module in stepper.model.modules()),
        "facts": facts,
        "step": attempt.number,
        "criterion": describe(stepper.epoch_criterion),
    }
    files = files_of(stepper.model, processor, _tensors(failure), state)
    if len(files[WEIGHTS]) > _MAX_WEIGHT_BYTES:
        files[WEIGHTS_DIGEST] = hashlib.sha256(files.pop(WEIGHTS)).hexdigest().encode()
    return Checkpoints(folder / f"process-{process}" if process else folder, _MAX_CAPSULES).save(attempt.number, files)


def _tensors(failure: StepError) -> dict[str, Any]:
    """Return the batches of a failed step and its totals."""
    totals = failure.attempt.totals
    batches = [{"inputs": micro.inputs, "rows": micro.rows, "counts": micro.counts} for micro in failure.micro_batches]
    step = {"images": float(totals.images), "labels": totals.labels.cpu(), "processes": totals.processes}
    return {"batches": batches, "step": step}


def images_of(micro_batches: Sequence[MicroBatch], split: Dataset) -> list[dict[str, Any]]:
    """Return `image_id` and `file`, empty if there is none, of each image that counts."""
    rows = [row for micro in micro_batches if micro.counts for row in micro.rows]
    images = split.with_format(None).select_columns(["image", "image_id"]).select(rows)
    return [{"image_id": row["image_id"], "file": row["image"]["path"] or ""} for row in images]


def describe_images(images: Sequence[Mapping[str, Any]]) -> str:
    """Return the ids of images, each with its file, for a message."""
    return ", ".join(f"{image['image_id']}" + (f" ({image['file']})" if image["file"] else "") for image in images)
