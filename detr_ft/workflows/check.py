"""Check a recipe: its values, and its criterion and augmentation by trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detr_ft.criterion import SetCriterion, check_criterion
from detr_ft.data.augmentation.check import try_augmentation
from detr_ft.errors import InputError
from detr_ft.models.freeze import check_parts
from detr_ft.models.load import empty_model
from detr_ft.models.locate import is_on_hub, resolve
from detr_ft.recipe.load import build_file, build_recipe
from detr_ft.recipe.paths import missing_paths, synonyms_problems
from detr_ft.recipe.recipe import Recipe
from detr_ft.utils.arguments import path_text
from detr_ft.utils.components import code_files
from detr_ft.workflows.splits import RecipeLike


@dataclass(frozen=True)
class CheckOutcome:
    """The problems of a recipe, none for a valid one, and the files of code that it runs.

    `missing` are the files and folders that it names and that are not on this machine, which may be another one than that of
    the training. `recipe` and `criterion` are None if values are invalid.
    """

    problems: tuple[str, ...]
    recipe: Recipe | None = None
    criterion: SetCriterion | None = None
    code_files: tuple[Path, ...] = ()
    missing: tuple[str, ...] = ()


def check(recipe: RecipeLike, overrides: Sequence[str] = ()) -> CheckOutcome:
    """Check a recipe with `section.key=value` overrides; takes seconds on a CPU.

    Data and weights are not read, but missing ones are reported. Code of the recipe runs in this process: its exceptions are
    problems, SystemExit too, but an endless loop or `os._exit` is reported by the command `detr-ft check` only, which runs
    it in a process of its own.
    """
    file = None if isinstance(recipe, Recipe) else Path(path_text("recipe", recipe, "a file or a Recipe"))
    name = "" if file is None else f"{file}: "
    try:
        built = build_recipe(recipe, overrides) if isinstance(recipe, Recipe) else build_file(Path(recipe), overrides)
    except InputError as error:
        return CheckOutcome(tuple(error.problems))
    problems = [f"criterion: {problem}" for problem in check_criterion(built.criterion)]
    fault = None if built.augmentation is None else try_augmentation(built.augmentation)
    if fault is not None:
        problems.append(f"data.augment: {fault}")
    missing = missing_paths(built.recipe)
    problems += synonyms_problems(built.recipe)
    problems += _unknown_parts(built.recipe)
    code = code_files([built.recipe.criterion, built.recipe.data.augment], built.recipe.folder)
    messages = tuple(f"{name}{problem}" for problem in problems)
    return CheckOutcome(messages, built.recipe, built.criterion, tuple(code), tuple(missing))


def _unknown_parts(recipe: Recipe) -> list[str]:
    """Return a problem for each frozen part that a checkpoint on this machine does not have."""
    section = recipe.model
    try:
        if section.checkpoint is None or not section.freeze or is_on_hub(resolve(section.checkpoint)):
            return []
        check_parts(empty_model(section.checkpoint), section.freeze)
    except InputError as error:
        return [] if missing_paths(recipe) else list(error.problems)
    return []
