"""Where a run goes on: its newest sound checkpoint, and what has changed since."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from detr_ft.criterion.serialization import describe
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.data import class_names
from detr_ft.errors import InputError
from detr_ft.recipe import Recipe
from detr_ft.run_directory import METRICS, RunDirectory
from detr_ft.training.checkpoint.state import Progress, differences, fingerprint, read_state
from detr_ft.training.checkpoint.store import Checkpoints

logger = logging.getLogger(__name__)

# What says how long a run is: with another value a finished one goes on.
_LENGTHS = ("num_train_epochs", "max_minutes", "early_stopping_patience")


def newest_checkpoint(recipe: Recipe) -> Path | None:
    """The checkpoint that a run goes on from, None where there is none; the other is said on the log."""
    run = RunDirectory(recipe.train.output_dir)
    found = Checkpoints(run.checkpoints, recipe.train.save_total_limit).newest()
    if found is None:
        logger.info("%s holds no checkpoint to go on from: training starts at the beginning", run.path)
    return found


def is_finished(recipe: Recipe, checkpoint: Path) -> bool:
    """Whether the run of a checkpoint came to its end, and the recipe asks for no more."""
    asked = recipe.train.model_dump(mode="json")
    then = read_state(checkpoint)["facts"].get("recipe", {}).get("train", {})
    as_long = all(then.get(name) == asked[name] for name in _LENGTHS)
    return as_long and (Path(recipe.train.output_dir) / METRICS).is_file()


def facts_of(
    recipe: Recipe, criterion: SetCriterion, train: Dataset, processes: int, versions: Mapping[str, str]
) -> Any:
    """What a checkpoint tells of the run that wrote it, as JSON has it."""
    described = recipe.model_dump(mode="json") | {"criterion": describe(criterion)}
    facts = {
        "classes": class_names(train),
        "data": {"images": len(train), "fingerprint": fingerprint(train)},
        "recipe": described,
        "folder": str(recipe.folder.resolve()),
        "processes": processes,
        "versions": dict(versions),
    }
    return json.loads(json.dumps(facts))


def tell_changes(checkpoint: Path, facts: Mapping[str, Any], force: bool) -> None:
    """Say what has changed since a checkpoint. Raises InputError for other classes or data, unless forced."""
    vital, others = differences(read_state(checkpoint)["facts"], facts)
    if vital and not force:
        raise InputError(
            [f"since {checkpoint} was written: {words}" for words in vital]
            + ["a run goes on with the same classes and data; start another one (train.output_dir=...), or --force"]
        )
    for words in vital + others:
        logger.warning("since the checkpoint: %s", words)
    at = Progress.read(checkpoint)
    exact = "" if vital or others else ", exactly as if it had not been stopped"
    logger.info("going on from %s: step %d, epoch %d%s", checkpoint, at.step, at.epoch + 1, exact)
