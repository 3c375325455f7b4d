"""Check a recipe: its values, and its criterion and augmentation by trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detr_ft.criterion import SetCriterion, check_criterion
from detr_ft.data.augmentation.check import try_augmentation
from detr_ft.errors import InputError
from detr_ft.recipe.load import build_file, build_recipe
from detr_ft.recipe.recipe import Recipe
from detr_ft.utils.arguments import path_text
from detr_ft.utils.components import code_files
from detr_ft.workflows.splits import RecipeLike


@dataclass(frozen=True)
class CheckOutcome:
    """The problems of a recipe, none for a valid one, and the files of code that it runs.

    `recipe` and `criterion` are None if values are invalid.
    """

    problems: tuple[str, ...]
    recipe: Recipe | None = None
    criterion: SetCriterion | None = None
    code_files: tuple[Path, ...] = ()


def check(recipe: RecipeLike, overrides: Sequence[str] = ()) -> CheckOutcome:
    """Check a recipe with `section.key=value` overrides; takes seconds on a CPU.

    Data and checkpoint are not read.
    """
    file = None if isinstance(recipe, Recipe) else Path(path_text("recipe", recipe, "a file or a Recipe"))
    name = "" if file is None else f"{file}: "
    try:
        built = build_recipe(recipe, overrides) if isinstance(recipe, Recipe) else build_file(Path(recipe), overrides)
    except InputError as error:
        return CheckOutcome(tuple(error.problems))
    problems = [f"criterion: {problem}" for problem in check_criterion(built.criterion)]
    fault = built.augmentation and try_augmentation(built.augmentation)
    if fault:
        problems.append(f"data.augment: {fault}")
    code = code_files([built.recipe.criterion, built.recipe.data.augment], built.recipe.folder)
    return CheckOutcome(tuple(f"{name}{problem}" for problem in problems), built.recipe, built.criterion, tuple(code))
