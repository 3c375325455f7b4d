"""Read recipes, build criterion and augmentation, and explain every mistake with its line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from detr_ft.criterion.serialization import configure
from detr_ft.criterion.set_criterion import SetCriterion, detr_criterion
from detr_ft.data.augmentation.builtin import BUILT_IN, NAMED, Augmentation, Mixing
from detr_ft.errors import InputError
from detr_ft.recipe.recipe import Recipe
from detr_ft.utils.components import ConfigureError, build_object
from detr_ft.utils.yaml import KeyPath, located_message, parse_yaml, read_located

Problem = tuple[KeyPath, str]
# The keys of common names of other tools.
_KEY_OF_ALIAS = {
    "accumulate": "gradient_accumulation_steps",
    "amp": "bf16",
    "batch": "per_device_train_batch_size",
    "batch_size": "per_device_train_batch_size",
    "clip": "max_grad_norm",
    "dataset": "source",
    "ema": "ema_decay",
    "epochs": "num_train_epochs",
    "grad_accum_steps": "gradient_accumulation_steps",
    "image_size": "longest_edge",
    "imgsz": "longest_edge",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "max_epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "num_workers": "dataloader_num_workers",
    "output": "output_dir",
    "path": "source",
    "patience": "early_stopping_patience",
    "pretrained": "checkpoint",
    "resolution": "longest_edge",
    "scheduler": "lr_scheduler_type",
    "warmup": "warmup_steps",
    "wd": "weight_decay",
    "weights": "checkpoint",
    "workers": "dataloader_num_workers",
}
# New values of keys by section; None removes the section.
Changes = dict[str, dict[str, Any] | None]


@dataclass(frozen=True)
class BuiltRecipe:
    """A recipe and the objects that it describes."""

    recipe: Recipe
    criterion: SetCriterion
    augmentation: Augmentation | None


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a YAML file with `section.key=value` overrides.

    Raises InputError with every mistake of the file, each with its line, and of the overrides, the criterion and the
    augmentation.
    """
    return build_file(Path(path), overrides).recipe


def build_file(path: Path, overrides: Sequence[str] = (), changes: Changes | None = None) -> BuiltRecipe:
    """Return the recipe in a YAML file, with changes and overrides, and its objects.

    Raises InputError as `load_recipe` does.
    """
    values, lines = read_located(path)
    _change(values, changes or {})
    return _build(values, overrides, path.parent, lambda place, message: located_message(path, lines, place, message))


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
    _change(values, changes or {})
    return _build(values, overrides, folder, lambda place, message: f"{'.'.join(map(str, place))}: {message}")


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a YAML file without building its criterion and augmentation. Raises InputError."""
    values, lines = read_located(path)
    try:
        return Recipe.model_validate(values).in_folder(path.parent)
    except ValidationError as error:
        raise InputError([located_message(path, lines, *_explain(one)) for one in error.errors()]) from error


def _build(
    values: dict[str, Any], overrides: Sequence[str], folder: Path, message_at: Callable[[KeyPath, str], str]
) -> BuiltRecipe:
    problems = [problem for override in overrides if (problem := _override(values, override))]
    faults: list[Problem] = []
    criterion = _criterion(values, folder, faults)
    augmentation = _augmentation(values, folder, faults)
    try:
        recipe = Recipe.model_validate(values).in_folder(folder)
    except ValidationError as error:
        explained = [message_at(*_explain(one)) for one in error.errors()]
        raise InputError([*problems, *(message_at(*fault) for fault in faults), *explained]) from error
    if problems or faults:
        raise InputError([*problems, *(message_at(*fault) for fault in faults)])
    return BuiltRecipe(recipe, criterion, augmentation)


def _criterion(values: Mapping[str, Any], folder: Path, faults: list[Problem]) -> SetCriterion:
    """Return the criterion of a recipe, DETR's own if it describes none; adds what is wrong to `faults`."""
    description = values.get("criterion")
    if isinstance(description, Mapping):
        try:
            return configure(description, folder)
        except ConfigureError as error:
            faults += [(("criterion", *place), message) for place, message in error.problems]
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
        if description not in NAMED:
            hint = difflib.get_close_matches(description, NAMED, 1)
            remedy = f"did you mean {hint[0]}?" if hint else f"there are {', '.join(NAMED)}, and {{use: ...}}"
            raise ConfigureError([((), f"there is no {description!r}; {remedy}")])
        return NAMED[description]
    augmentation: Augmentation = build_object(description, BUILT_IN, folder)
    return augmentation


def _change(values: dict[str, Any], changes: Changes) -> None:
    """Set the keys of sections in the values."""
    for name, section in changes.items():
        before = values.get(name)
        values[name] = {**(before if isinstance(before, dict) else {}), **section} if section is not None else None


def _override(values: dict[str, Any], override: str) -> str | None:
    """Set `section.key=value` in the values; returns what is wrong with it."""
    dotted, separator, text = override.partition("=")
    *sections, key = dotted.split(".")
    if not separator or not sections or not key:
        return f"{override}: an override is written section.key=value, for example train.learning_rate=5e-5"
    node: Any = values
    for section in sections:
        node = node.setdefault(section, {}) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        return f"{override}: {'.'.join(sections)} has no keys"
    try:
        node[key] = parse_yaml(text, override)
    except InputError:
        return f"{override}: {text!r} is not a YAML value"
    return None


def _explain(error: Any) -> Problem:
    place: KeyPath = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        keys = _keys(place[:-1])
        known = _KEY_OF_ALIAS.get(str(place[-1]))
        hint = [known] if known in keys else difflib.get_close_matches(str(place[-1]), keys, 1)
        return place, "unknown key" + (f"; did you mean {hint[0]}?" if hint else f"; there are {', '.join(keys)}")
    if error["type"] == "missing":
        return place, "is missing"
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(error["input"], dict) else f", got {error['input']!r}"
    return place, message[0].lower() + message[1:] + shown


def _keys(place: KeyPath) -> list[str]:
    model: type[BaseModel] = Recipe
    for key in place:
        annotation = model.model_fields[str(key)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
