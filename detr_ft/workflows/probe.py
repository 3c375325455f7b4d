"""Try a recipe on its own data and hardware."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from detr_ft.criterion import SetCriterion
from detr_ft.data import load_data
from detr_ft.recipe import Recipe
from detr_ft.training.monitor.display import PlainDisplay
from detr_ft.training.preflight.probe import describe_probe, probe
from detr_ft.training.preflight.timing import changes, describe_rates, step_rate
from detr_ft.training.step import StepError
from detr_ft.workflows.prepare import Prepared, prepare
from detr_ft.workflows.train import build_trainer


def probe_recipe(recipe: Recipe, criterion: SetCriterion) -> list[str]:
    """Try a run out on its own data and hardware, leaving nothing behind: what came of it, in words. Raises InputError."""
    with tempfile.TemporaryDirectory() as folder:
        train = recipe.train.model_copy(update={"output_dir": f"{folder}/run"})
        aside = recipe.model_copy(update={"train": train})
        prepared = prepare(aside, load_data(recipe.data.source, box_format=recipe.data.box_format))
        fresh = copy.deepcopy(prepared.model)
        trainer = build_trainer(aside, criterion, prepared, PlainDisplay(lambda line: None))
        try:
            result = probe(trainer)
        except StepError as failure:
            return [f"a step fails: {failure.reason}"]
        lines = describe_probe(result, recipe.train.dataloader_num_workers)
        return [*lines, _tried_otherwise(aside, criterion, replace(prepared, model=fresh), Path(folder))]


def _tried_otherwise(recipe: Recipe, criterion: SetCriterion, prepared: Prepared, folder: Path) -> str:
    """How fast a step is as the recipe says, and with each setting of speed changed."""
    rates: dict[str, float] = {}
    for number, change in enumerate([{}, *changes(recipe.train, torch.cuda.is_available())]):
        train = recipe.train.model_copy(update={**change, "output_dir": str(folder / f"try-{number}")})
        own = replace(prepared, model=copy.deepcopy(prepared.model))
        trainer = build_trainer(
            recipe.model_copy(update={"train": train}), criterion, own, PlainDisplay(lambda line: None)
        )
        name = " ".join(f"train.{key}={str(value).lower()}" for key, value in change.items())
        try:
            rates[name] = step_rate(trainer)
        except StepError as failed:
            return f"a step {f'by {name} ' if name else ''}can't be taken: {failed.reason}"
    return describe_rates(rates.pop(""), rates)
