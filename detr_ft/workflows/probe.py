"""Probe a recipe on its own data and hardware."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from detr_ft.recipe import LoadedRecipe, Recipe, build, load
from detr_ft.training.monitor.display import PlainDisplay
from detr_ft.training.preflight.probe import Probe
from detr_ft.training.preflight.probe import probe as probe_trainer
from detr_ft.training.preflight.timing import changes, step_rate
from detr_ft.training.step import StepError
from detr_ft.workflows.prepare import Prepared, prepare
from detr_ft.workflows.run import build_trainer
from detr_ft.workflows.splits import DataLike, read_data, read_source


@dataclass(frozen=True)
class ProbeOutcome:
    """The results of a probe.

    `rates` are images a second of a training step with one setting changed, the settings of the recipe under an empty name.
    `failure` is the error of a step under one of them, empty if all ran.
    """

    recipe: Recipe
    probe: Probe
    rates: Mapping[str, float]
    failure: str = ""


def probe(
    recipe: Recipe | str | os.PathLike[str], overrides: Sequence[str] = (), *, data: DataLike | None = None
) -> ProbeOutcome:
    """Run a recipe for a few minutes on its own data and hardware: does it learn a batch, how fast is it, does it fit.

    Nothing is left on the disk. `data` replaces those of the recipe. Raises InputError, and StepError if a step fails.
    """
    loaded = build(recipe, overrides) if isinstance(recipe, Recipe) else load(Path(recipe), overrides)
    with tempfile.TemporaryDirectory() as folder:
        aside = _with_train(loaded, {"output_dir": f"{folder}/run"})
        splits = read_source(aside.recipe.data) if data is None else read_data(data).splits
        prepared = prepare(aside.recipe, splits)
        fresh = copy.deepcopy(prepared.model)
        result = probe_trainer(build_trainer(aside, prepared, _silent()))
        rates, failure = _step_rates(aside, replace(prepared, model=fresh), Path(folder))
    return ProbeOutcome(loaded.recipe, result, rates, failure)


def _step_rates(loaded: LoadedRecipe, prepared: Prepared, folder: Path) -> tuple[dict[str, float], str]:
    """Return images a second of a step as the recipe says and with each setting of speed changed, and a failure."""
    rates: dict[str, float] = {}
    for number, change in enumerate([{}, *changes(loaded.recipe.train, torch.cuda.is_available())]):
        variant = _with_train(loaded, {**change, "output_dir": str(folder / f"try-{number}")})
        own = replace(prepared, model=copy.deepcopy(prepared.model))
        name = " ".join(f"train.{key}={str(value).lower()}" for key, value in change.items())
        try:
            rates[name] = step_rate(build_trainer(variant, own, _silent()))
        except StepError as error:
            return rates, f"a step {f'with {name} ' if name else ''}failed: {error.reason}"
    return rates, ""


def _with_train(loaded: LoadedRecipe, change: Mapping[str, object]) -> LoadedRecipe:
    train = loaded.recipe.train.model_copy(update=change)
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"train": train}))


def _silent() -> PlainDisplay:
    return PlainDisplay(lambda line: None)
