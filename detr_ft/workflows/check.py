"""What the commands evaluate, predict, push and check do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detr_ft.criterion import check_criterion
from detr_ft.data.augmentation.check import try_augmentation
from detr_ft.errors import InputError
from detr_ft.recipe import load_recipe
from detr_ft.utils.components import code_files
from detr_ft.utils.progress import say
from detr_ft.workflows.probe import probe_recipe


def check_recipe(path: Path, overrides: Sequence[str]) -> None:
    """Check a recipe and try its criterion and augmentation; raises InputError with everything that is wrong."""
    recipe, criterion = load_recipe(path, overrides)
    for file in code_files([recipe.criterion, recipe.data.augment], path.parent):
        say(f"{path} runs code: {file}")
    problems = [f"criterion: {problem}" for problem in check_criterion(criterion)]
    augment = recipe.build_augmentation()
    fault = augment and try_augmentation(augment)
    if fault:
        problems.append(f"data.augment: {fault}")
    if problems:
        raise InputError([f"{path}: {problem}" for problem in problems])
    say(str(criterion))
    say(
        f"{path}: the recipe is sound. Its criterion was tried with many objects, none and more than queries, with extreme "
        "and half-precision values, in other orders and shares, and by training, and its augmentation on made-up images: no fault was found. "
        "Data and checkpoint were not looked at so far: --probe does that"
    )


def probe_run(path: Path, overrides: Sequence[str]) -> list[str]:
    """Try a recipe's run out on its data, and say what came of it. Raises InputError."""
    return probe_recipe(*load_recipe(path, overrides))
