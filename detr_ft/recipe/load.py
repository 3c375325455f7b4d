"""Build the criterion and the augmentation of a recipe, and report every mistake with its line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detr_ft.criterion.serialization import configure, unsupported_terms
from detr_ft.criterion.set_criterion import SetCriterion, detr_criterion
from detr_ft.data.augmentation.builtin import BUILT_IN, NAMED, Augmentation, Mixing
from detr_ft.errors import InputError
from detr_ft.recipe.recipe import Recipe
from detr_ft.recipe.values import Changes, Problem, RecipeValues, given_values, read_values
from detr_ft.structures import Activation
from detr_ft.utils.arguments import path_text
from detr_ft.utils.components import ConfigureError, build_object
from detr_ft.utils.keys import closest
from detr_ft.utils.user_code import describe_error, raise_if_interrupt

if TYPE_CHECKING:
    from detr_ft.models.families import Family


@dataclass(frozen=True)
class BuiltRecipe:
    """A recipe and the objects that it describes.

    `family` is that of the checkpoint, None if its config is not on this machine. `criterion` is that of the recipe, unless
    the caller gave another one.
    """

    recipe: Recipe
    criterion: SetCriterion
    augmentation: Augmentation | None
    family: Family | None = None
    has_given_criterion: bool = False

    def with_criterion(self, criterion: SetCriterion) -> BuiltRecipe:
        """Return the recipe with another criterion.

        Raises InputError for terms that do not support the activation of the model, if that is known.
        """
        problems = [] if self.family is None else unsupported_terms(criterion, self.family.activation)
        if problems:
            raise InputError([f"criterion: {problem}" for problem in problems])
        return replace(self, criterion=criterion, has_given_criterion=True)


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a YAML file with `section.key=value` overrides.

    Raises InputError with every mistake of the file, each with its line, and of the overrides, the criterion and the
    augmentation.
    """
    return build_file(Path(path_text("path", path)), overrides).recipe


def build_file(path: Path, overrides: Sequence[str] = (), changes: Changes | None = None) -> BuiltRecipe:
    """Return the recipe in a YAML file, with changes and overrides, and its objects.

    Raises InputError as `load_recipe` does.
    """
    return _build(read_values(path, overrides, changes))


def build_recipe(recipe: Recipe, overrides: Sequence[str] = (), changes: Changes | None = None) -> BuiltRecipe:
    """Return a recipe with changes and overrides, and its objects.

    Raises InputError with every mistake.
    """
    return build_values(recipe.model_dump(mode="json"), overrides, changes, recipe.folder)


def build_values(
    values: dict[str, Any], overrides: Sequence[str] = (), changes: Changes | None = None, folder: Path = Path()
) -> BuiltRecipe:
    """Return the recipe of plain values, with changes and overrides, and its objects.

    Raises InputError with every mistake.
    """
    return _build(given_values(values, overrides, changes, folder))


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a YAML file without building its criterion and augmentation. Raises InputError."""
    read = read_values(path)
    recipe, problems = read.validate()
    if recipe is None:
        raise InputError(read.messages(problems))
    return recipe


def _build(read: RecipeValues) -> BuiltRecipe:
    """Build the objects of a recipe. Mistakes apart from the model are reported before transformers loads."""
    faults: list[Problem] = []
    criterion = _criterion(read.values, read.folder, "softmax", faults)
    augmentation = _augmentation(read.values, read.folder, faults)
    recipe, problems = read.validate()
    messages = read.messages([*faults, *problems])
    if recipe is None or messages:
        raise InputError(messages)
    family = _family(recipe)
    if family is not None and recipe.criterion is None:
        criterion = family.default_criterion()
    elif family is not None:
        criterion = _criterion(read.values, read.folder, family.activation, faults)
    if family is not None:
        faults += [(("criterion",), message) for message in unsupported_terms(criterion, family.activation)]
    if faults:
        raise InputError(read.messages(faults))
    return BuiltRecipe(recipe, criterion, augmentation, family)


def _family(recipe: Recipe) -> Family | None:
    """Return the family of a recipe's checkpoint, None if its config is not on this machine."""
    if recipe.model.checkpoint is None:
        return None
    from detr_ft.models.load import local_family  # loads transformers, for recipes with a checkpoint only

    return local_family(recipe.model.checkpoint, recipe.model.revision)


def _criterion(values: Mapping[str, Any], folder: Path, activation: Activation, faults: list[Problem]) -> SetCriterion:
    """Return the criterion that a recipe describes, by default DETR's; adds mistakes to `faults`."""
    description = values.get("criterion")
    if not isinstance(description, Mapping):
        return detr_criterion()
    try:
        return configure(description, folder, activation)
    except ConfigureError as error:
        faults += [(("criterion", *place), message) for place, message in error.problems]
    except BaseException as error:  # noqa: BLE001 - a property of a user's term may raise anything
        raise_if_interrupt(error)
        faults.append((("criterion",), describe_error(error)))
    return detr_criterion()


def _augmentation(values: Mapping[str, Any], folder: Path, faults: list[Problem]) -> Augmentation | None:
    """Return the augmentation of a recipe; adds what is wrong to `faults`."""
    section = values.get("data")
    if not isinstance(section, Mapping):
        return None
    description = section.get("augment", "light")
    if not isinstance(description, (str, Mapping)):
        return None
    try:
        augmentation = _augmentation_of(description, folder)
    except ConfigureError as error:
        faults += [(("data", "augment", *place), message) for place, message in error.problems]
        return None
    if "augment" in section and section.get("mixing_epochs") is not None and not isinstance(augmentation, Mixing):
        what = "data.augment doesn't mix images. Choose strong, or your own augmentation with without_mixing()"
        faults.append((("data", "mixing_epochs"), what))
    return augmentation


def _augmentation_of(description: object, folder: Path) -> Augmentation | None:
    if isinstance(description, str):
        if ":" in description:
            raise ConfigureError([((), f"{description!r} is a class of your own. Write {{use: {description!r}}}")])
        if description not in NAMED:
            hint = closest(description, NAMED)
            remedy = f"did you mean {hint}?" if hint else f"there are {', '.join(NAMED)}, and {{use: ...}}"
            raise ConfigureError([((), f"there is no {description!r}; {remedy}")])
        return NAMED[description]
    augmentation: Augmentation = build_object(description, BUILT_IN, folder)
    return augmentation
