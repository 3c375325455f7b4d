"""Checks of arguments that need no large library: paths, and the keys of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detr_ft.data.sources.registry import check_spec
from detr_ft.errors import InputError
from detr_ft.models.locate import resolve
from detr_ft.recipe.values import check_keys


def check_recipe(file: Path, overrides: Sequence[str]) -> None:
    """Raise InputError for every mistake in a recipe, or if its data or checkpoint do not exist."""
    recipe = check_keys(file, overrides)
    if recipe is None:
        from detr_ft.recipe.load import load_recipe  # loads torch

        recipe = load_recipe(file, overrides)
    problems = [] if recipe.data.in_memory else _problems_of_data(recipe.data.source)
    if recipe.model.checkpoint is not None:
        problems += _problems_of_model(recipe.model.checkpoint)
    if problems:
        raise InputError(problems)


def check_paths(models: Sequence[str] = (), data: str | None = None, files: Sequence[Path] = ()) -> None:
    """Raise InputError for every model, data set and file that does not exist."""
    problems = [problem for model in models for problem in _problems_of_model(model)]
    problems += [] if data is None else _problems_of_data(data)
    problems += [f"{file}: no such file or folder" for file in files if not file.exists()]
    if problems:
        raise InputError(problems)


def _problems_of_model(model: str) -> Sequence[str]:
    """Return what is wrong with the name of a checkpoint."""
    try:
        resolve(model)
    except InputError as error:
        return error.problems
    return []


def _problems_of_data(data: str) -> list[str]:
    """Return what is wrong with the name of a data set."""
    try:
        check_spec(data)
    except InputError as error:
        return list(error.problems)
    return []
