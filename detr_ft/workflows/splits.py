"""Which images a command is about: those that are named, or those that a run held out."""

from __future__ import annotations

import json
from pathlib import Path

from datasets import Dataset, DatasetDict

from detr_ft.data import load_data
from detr_ft.data.integrity.usable_images import with_true_sizes
from detr_ft.errors import InputError
from detr_ft.models.load import resolve
from detr_ft.recipe import Recipe, read_recipe
from detr_ft.run_directory import CHECKPOINTS, HELD_OUT, RECIPE
from detr_ft.workflows.prepare import names_of


def split_of(model: str, data: str | None, split: str | None, box_format: str | None = None) -> Dataset:
    """A split of some data, or where none are given what the run of a model held out. Raises InputError."""
    recipe = recipe_of(Path(model))
    if data is None:
        if recipe is None:
            resolve(model)
            raise InputError(f"{model} holds no recipe.yaml that names its data; give --data")
        splits = load_data(recipe.data.source, box_format=box_format or recipe.data.box_format)
        if split in (None, "validation"):
            return _held_out(_run_of(Path(model)), recipe, splits)
    else:
        splits = load_data(data, box_format=box_format)
    chosen = split or next((name for name in ("validation", "test", "train") if name in splits), "")
    if chosen not in splits:
        raise InputError(f"the data has no split {chosen!r}; it has {', '.join(splits)}")
    return with_true_sizes(splits, chosen)


def _held_out(run: Path, recipe: Recipe, splits: DatasetDict) -> Dataset:
    """What a run did not train on, as it wrote down, or the data's own validation split."""
    file = run / HELD_OUT
    own = "validation" in splits and not recipe.data.fold
    if not file.is_file():
        if own:
            return with_true_sizes(splits, "validation")
        raise InputError(f"{file} is missing, which tells what the run did not train on; give --data and --split")
    wanted = set(map(tuple, json.loads(file.read_text(encoding="utf-8"))))
    taken_from = "validation" if own else "train"
    rows = [row for row, name in enumerate(names_of(splits[taken_from])) if name in wanted]
    if len(rows) != len(wanted):
        raise InputError(
            f"{run}: of the {len(wanted)} images that it did not train on, {recipe.data.source} still holds {len(rows)}; "
            "evaluate on other data with --data"
        )
    return with_true_sizes(splits, taken_from, rows)


def recipe_of(run: Path) -> Recipe | None:
    """The recipe of a run directory, if it holds one."""
    file = _run_of(run) / RECIPE
    return read_recipe(file) if file.is_file() else None


def _run_of(model: Path) -> Path:
    """The run directory that a model is, or that a checkpoint lies in."""
    return model.parents[1] if model.parent.name == CHECKPOINTS else model
