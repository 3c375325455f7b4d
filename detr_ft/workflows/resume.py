"""Resume a run: its newest valid checkpoint, and what changed since it was written."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from detr_ft.criterion.serialization import explicit_names
from detr_ft.data.schema import class_names
from detr_ft.errors import InputError
from detr_ft.evaluation.metrics import RunMetrics
from detr_ft.recipe.recipe import Recipe
from detr_ft.run_directory import METRICS, RunDirectory
from detr_ft.training.checkpoint.state import Progress, differences, fingerprint, read_facts
from detr_ft.training.checkpoint.store import Checkpoints
from detr_ft.utils.threads import threads_are_chosen, use_free_cores

logger = logging.getLogger(__name__)

# The settings of a run's length: a finished run continues if one of them changed.
_LENGTHS = ("num_train_epochs", "max_minutes", "early_stopping_patience")


def newest_checkpoint(recipe: Recipe) -> Path | None:
    """Return the checkpoint that a run continues from, None if there is none; logs that.

    Raises InputError if all of them are damaged.
    """
    run = RunDirectory(recipe.train.output_dir)
    checkpoints = Checkpoints(run.checkpoints, recipe.train.save_total_limit)
    checkpoint = checkpoints.newest()
    if checkpoint is None and (faults := checkpoints.faults()):
        raise InputError(
            [
                *faults,
                f"all checkpoints of {run.path} are damaged. Restore one from a backup, or train from the start: remove "
                f"{run.path}, or choose another folder (train.output_dir={run.path}-2)",
            ]
        )
    if checkpoint is None:
        logger.info("%s has no checkpoint to continue from: training starts at the beginning", run.path)
    return checkpoint


def finished_metrics(recipe: Recipe, checkpoint: Path) -> RunMetrics | None:
    """Return the metrics of a run that reached its end, None if it did not or if its length changed.

    Raises InputError if they can't be read.
    """
    now = recipe.train.model_dump(mode="json")
    recorded = read_facts(checkpoint).get("recipe")
    then = recorded.get("train") if isinstance(recorded, dict) else None
    if not isinstance(then, dict) or any(then.get(name) != now[name] for name in _LENGTHS):
        return None
    file = Path(recipe.train.output_dir) / METRICS  # written last
    return RunMetrics.read(file) if file.is_file() else None


def choose_threads(checkpoint: Path | None) -> None:
    """Use the threads of a checkpoint, on which the last bits depend; in a new run, free cores.

    An environment variable has priority: `check_changes` then reports the difference.
    """
    threads = None if checkpoint is None else read_facts(checkpoint).get("threads")
    if not isinstance(threads, int) or threads < 1:  # older checkpoints have none
        use_free_cores()
    elif not threads_are_chosen():
        torch.set_num_threads(threads)


def facts_of(recipe: Recipe, train: Dataset, processes: int, versions: Mapping[str, str]) -> Any:
    """Return what a checkpoint records of its run, as JSON has it. `recipe` has its criterion."""
    facts = {
        "classes": class_names(train),
        "data": {"images": len(train), "fingerprint": fingerprint(train)},
        "recipe": recipe.model_dump(mode="json"),
        "folder": str(recipe.folder.resolve()),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "versions": dict(versions),
    }
    return json.loads(json.dumps(facts))


def check_changes(checkpoint: Path, facts: Mapping[str, Any], force: bool) -> None:
    """Log what changed since a checkpoint.

    Raises InputError for other classes or training data, unless `force`.
    """
    then = {"threads": facts["threads"]} | read_facts(checkpoint)  # older checkpoints have none
    vital, others = differences(explicit_names(then), facts)
    if vital and not force:
        raise InputError(
            [f"since {checkpoint} was written: {change}" for change in vital]
            + [
                "a run continues with the same classes and data only. Start another (train.output_dir=...), or use force (--force)"
            ]
        )
    for change in vital + others:
        logger.warning("since the checkpoint: %s", change)
    at = Progress.read(checkpoint)
    exact = "" if vital or others else ", exactly as if it had not been stopped"
    logger.info("resuming from %s: step %d, epoch %d%s", checkpoint, at.step, at.epoch + 1, exact)
