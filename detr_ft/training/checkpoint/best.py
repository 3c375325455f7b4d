"""The model of the best evaluation, and whether its folder still has it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import nn

from detr_ft.errors import InputError
from detr_ft.run_directory import BEST_CHECKPOINT, CHECKPOINT_STATE, WEIGHTS, RunDirectory
from detr_ft.training.checkpoint.state import Progress, load_saved, read_state
from detr_ft.training.monitor.training_log import evaluations
from detr_ft.training.settings import TrainSettings
from detr_ft.training.stopping import best_of
from detr_ft.utils.complete_folder import DIGESTS, fault_of

logger = logging.getLogger(__name__)

_REMEDY = (
    "The run is to end with its best model. Restore the folder from a backup, or end with the last model "
    "(train.load_best_model_at_end=false)"
)


def state_of(step: int) -> dict[str, Any]:
    """Return the `state.json` of the model that was evaluated after a step."""
    return {"step": step}


def check_best(run: RunDirectory, checkpoint: Path, settings: TrainSettings) -> None:
    """Check that the folder of the best model is that of the best evaluation before a checkpoint.

    If the run ends with this model (`load_best_model_at_end`), a fault raises InputError, else it is logged.
    """
    progress = Progress.read(checkpoint)
    rows = evaluations(run, progress.rows)
    best = best_of(rows, settings.metric_for_best_model, settings.early_stopping_threshold)
    if best is None:
        return
    folder = run.path / BEST_CHECKPOINT
    fault = _fault(folder, best.step, evaluated=progress.evaluated)
    if fault and settings.load_best_model_at_end:
        raise InputError(f"{folder}: {fault}. {_REMEDY}")
    if fault:
        logger.warning("%s: %s. The run continues without it", folder, fault)


def load_best(model: nn.Module, run: RunDirectory, step: int) -> None:
    """Load the model that was evaluated after a step. Raises InputError if its folder has another one."""
    folder = run.path / BEST_CHECKPOINT
    fault = _fault(folder, step)
    if fault:
        raise InputError(f"{folder}: {fault}. {_REMEDY}")
    load_saved(model, folder)


def _fault(folder: Path, step: int, evaluated: int | None = None) -> str:
    """Return why a folder has not the model of a step; empty if it has.

    It may have that of an evaluation after the one of step `evaluated`, the last before a checkpoint: the resumed run
    repeats it. Earlier versions recorded neither step nor digests.
    """
    if not folder.is_dir():
        return f"is missing, and the best evaluation was at step {step}"
    if not (folder / DIGESTS).exists() and not (folder / CHECKPOINT_STATE).exists():
        has_weights = any(folder.glob(WEIGHTS.replace(".", "*.")))
        return "" if has_weights else f"has no {WEIGHTS}"
    fault = fault_of(folder)
    if fault:
        return fault
    own = read_state(folder).get("step")
    is_repeated = evaluated is not None and isinstance(own, int) and own > evaluated
    if own == step or is_repeated:
        return ""
    return f"has the model of step {own}, and the best evaluation was at step {step}"
