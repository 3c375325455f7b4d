"""Files and folders that a recipe names and that are not on this machine. Nothing here loads torch."""

from __future__ import annotations

from collections.abc import Callable

from detr_ft.data.sources.registry import check_spec
from detr_ft.errors import InputError
from detr_ft.models.locate import resolve
from detr_ft.recipe.recipe import Recipe


def missing_paths(recipe: Recipe, with_data: bool = True) -> list[str]:
    """Return a message for each of data, checkpoint, backbone and file of synonyms that does not exist."""
    section, problems = recipe.model, []
    if with_data and not recipe.data.in_memory:
        problems += _problems("data.source", check_spec, recipe.data.source)
    for key, checkpoint in (("model.checkpoint", section.checkpoint), ("model.backbone", section.backbone)):
        if checkpoint is not None:
            problems += _problems(key, resolve, checkpoint)
    if isinstance(section.synonyms, str) and not (recipe.folder / section.synonyms).is_file():
        problems.append(f"model.synonyms: {recipe.folder / section.synonyms}: no such file. Paths start at the recipe")
    return problems


def synonyms_problems(recipe: Recipe) -> list[str]:
    """Return what is wrong in an existing file of synonyms."""
    if not isinstance(recipe.model.synonyms, str) or not (recipe.folder / recipe.model.synonyms).is_file():
        return []
    try:
        recipe.synonyms()
    except InputError as error:
        return [f"model.synonyms: {problem}" for problem in error.problems]
    return []


def _problems(key: str, check: Callable[[str], object], value: str) -> list[str]:
    try:
        check(value)
    except InputError as error:
        return [f"{key}: {problem}" for problem in error.problems]
    return []
