"""Probe a recipe on its own data and hardware."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from detr_ft.errors import InputError
from detr_ft.recipe.load import BuiltRecipe, build_file, build_recipe
from detr_ft.recipe.paths import missing_paths, synonyms_problems
from detr_ft.recipe.recipe import Recipe
from detr_ft.training.monitor.display import PlainDisplay
from detr_ft.training.preflight.probe import Probe
from detr_ft.training.preflight.probe import probe as probe_trainer
from detr_ft.training.preflight.timing import changes, step_rate
from detr_ft.training.step import StepError
from detr_ft.utils.arguments import path_text
from detr_ft.workflows.prepare import Prepared, prepare
from detr_ft.workflows.run import build_trainer, check_augmentation, with_family
from detr_ft.workflows.splits import DataLike, RecipeLike, read_data, read_source


@dataclass(frozen=True)
class ProbeOutcome:
    """The results of a probe.

    `rates` are images a second of a training step with one setting changed, the settings of the recipe under an empty
    name. `failure` is the error of a step under one of them, empty if all ran.
    """

    recipe: Recipe
    probe: Probe
    rates: Mapping[str, float]
    failure: str = ""


def probe(recipe: RecipeLike, overrides: Sequence[str] = (), *, data: DataLike | None = None) -> ProbeOutcome:
    """Run a recipe for a few minutes on its own data and hardware.

    Overfits one batch, times steps, and measures the memory of the largest batch. Nothing is left on the disk. `data`
    replaces those of the recipe. Raises InputError.
    """
    if isinstance(recipe, Recipe):
        built = build_recipe(recipe, overrides)
    else:
        built = build_file(Path(path_text("recipe", recipe, "a file or a Recipe")), overrides)
    problems = [*missing_paths(built.recipe, with_data=data is None), *synonyms_problems(built.recipe)]
    if problems:
        raise InputError(problems)
    check_augmentation(built)
    with tempfile.TemporaryDirectory() as folder:
        aside = _with_train(built, {"output_dir": f"{folder}/run"})
        splits = read_source(aside.recipe.data) if data is None else read_data(data).splits
        aside = with_family(aside)
        prepared = prepare(aside.recipe, splits)
        fresh = copy.deepcopy(prepared.model)
        result = probe_trainer(build_trainer(aside, prepared, _silent()))
        rates, failure = _step_rates(aside, replace(prepared, model=fresh), Path(folder))
    return ProbeOutcome(built.recipe, result, rates, failure)


def _step_rates(built: BuiltRecipe, prepared: Prepared, folder: Path) -> tuple[dict[str, float], str]:
    """Return images a second of a step with each setting of speed changed, and a failure."""
    rates: dict[str, float] = {}
    for number, change in enumerate([{}, *changes(built.recipe.train, torch.cuda.is_available())]):
        variant = _with_train(built, {**change, "output_dir": str(folder / f"try-{number}")})
        own = replace(prepared, model=copy.deepcopy(prepared.model))
        name = " ".join(f"train.{key}={str(value).lower()}" for key, value in change.items())
        try:
            rates[name] = step_rate(build_trainer(variant, own, _silent()))
        except StepError as error:
            return rates, f"a step {f'with {name} ' if name else ''}failed: {error.reason}"
    return rates, ""


def _with_train(built: BuiltRecipe, change: Mapping[str, object]) -> BuiltRecipe:
    train = built.recipe.train.model_copy(update=change)
    return replace(built, recipe=built.recipe.model_copy(update={"train": train}))


def _silent() -> PlainDisplay:
    return PlainDisplay(lambda line: None)
