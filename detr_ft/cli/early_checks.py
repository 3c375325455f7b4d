"""Checks of arguments that need no large library: paths, and the keys of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from detr_ft.data.sources.listing import image_files
from detr_ft.data.sources.registry import check_spec
from detr_ft.data.writers.registry import label_formats
from detr_ft.errors import InputError
from detr_ft.models.locate import resolve
from detr_ft.recipe.paths import missing_paths, synonyms_problems
from detr_ft.recipe.recipe import Recipe
from detr_ft.recipe.values import check_keys
from detr_ft.run_directory import RunDirectory


def check_recipe(file: Path, overrides: Sequence[str]) -> Recipe:
    """Return a valid recipe. Raises InputError with every mistake in it."""
    recipe = check_keys(file, overrides)
    if recipe is None:
        from detr_ft.recipe.load import load_recipe  # loads torch

        recipe = load_recipe(file, overrides)
    return recipe


def check_paths(models: Sequence[str] = (), data: str | None = None, files: Sequence[Path] = ()) -> None:
    """Raise InputError with every model, data set and file that does not exist."""
    problems = [problem for model in models for problem in _problems(resolve, model)]
    problems += [] if data is None else _problems(check_spec, data)
    problems += [f"{file}: no such file or folder" for file in files if not file.exists()]
    if problems:
        raise InputError(problems)


def check_recipe_paths(recipe: Recipe, resume: bool) -> None:
    """Raise InputError for missing files of a recipe, and for an output folder that can't be used."""
    problems = [*missing_paths(recipe), *synonyms_problems(recipe)]
    if not resume:
        problems += _problems(RunDirectory.refuse_another_run, RunDirectory(recipe.train.output_dir))
    if problems:
        raise InputError(problems)


def check_images(model: str, paths: Sequence[str], formats: Sequence[str]) -> None:
    """Raise InputError if the model or an image does not exist, or a format of labels is unknown."""
    problems = [*_problems(resolve, model), *_problems(image_files, paths), *_problems(label_formats, formats)]
    if problems:
        raise InputError(problems)


def _problems(check: Callable[..., object], argument: object) -> list[str]:
    try:
        check(argument)
    except InputError as error:
        return list(error.problems)
    return []
