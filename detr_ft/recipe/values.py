"""The plain values of a recipe file: overrides, and every mistake in its keys, without loading torch."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from detr_ft.errors import InputError
from detr_ft.recipe.recipe import Recipe
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
# The terms of DETR's own criterion, with values of their parameters that are certainly valid.
_Ranges = Mapping[str, Mapping[str, tuple[float, float]]]
_WEIGHT = {"weight": (1e-3, 1e3)}
_DETR_COSTS: _Ranges = {"ClassCost": _WEIGHT, "BoxL1Cost": _WEIGHT, "GIoUCost": _WEIGHT}
_DETR_LOSSES: _Ranges = {
    "CrossEntropyLoss": {**_WEIGHT, "eos_coef": (1e-3, 1.0)},
    "BoxL1Loss": _WEIGHT,
    "GIoULoss": _WEIGHT,
    "CardinalityError": {"weight": (0.0, 1e3)},
}
_NAMED_AUGMENTATIONS = ("none", "light", "detr", "strong")
# New values of keys by section; None removes the section.
Changes = dict[str, dict[str, Any] | None]


@dataclass(frozen=True)
class RecipeValues:
    """The values of a recipe, not yet validated, and the mistakes in its overrides."""

    values: dict[str, Any]
    folder: Path
    problems: tuple[str, ...]
    message_at: Callable[[KeyPath, str], str]  # the message with its place in the file

    def validate(self) -> tuple[Recipe | None, list[str]]:
        """Return the typed recipe, None if it is invalid, and every mistake in its keys and values."""
        try:
            return Recipe.model_validate(self.values).in_folder(self.folder), []
        except ValidationError as error:
            return None, [self.message_at(*_explain(one)) for one in error.errors()]


def read_values(path: Path, overrides: Sequence[str] = (), changes: Changes | None = None) -> RecipeValues:
    """Return the values of a YAML file with changes and overrides.

    Raises InputError for a file that can't be parsed.
    """
    values, lines = read_located(path)
    _change(values, changes or {})
    return RecipeValues(
        values,
        path.parent,
        _apply(values, overrides),
        lambda place, message: located_message(path, lines, place, message),
    )


def given_values(
    values: dict[str, Any], overrides: Sequence[str] = (), changes: Changes | None = None, folder: Path = Path()
) -> RecipeValues:
    """Return plain values with changes and overrides."""
    _change(values, changes or {})
    return RecipeValues(
        values, folder, _apply(values, overrides), lambda place, message: f"{'.'.join(map(str, place))}: {message}"
    )


def check_keys(path: Path, overrides: Sequence[str] = ()) -> Recipe | None:
    """Return the recipe in a YAML file if it has DETR's own criterion and a named augmentation, else None.

    `detr_ft.recipe.load` has to build the others to find their mistakes, which loads torch. Raises InputError with every
    mistake.
    """
    read = read_values(path, overrides)
    if not (_is_detr_criterion(read.values.get("criterion")) and _is_named_augmentation(read.values.get("data"))):
        return None
    recipe, problems = read.validate()
    if recipe is None or read.problems:
        raise InputError([*read.problems, *problems])
    return recipe


def _is_detr_criterion(description: object) -> bool:
    """Return True for the terms of DETR's own criterion with any valid weights."""
    if description is None:
        return True
    if not (isinstance(description, Mapping) and set(description) == {"matcher", "losses"}):
        return False
    matcher = description["matcher"]
    if not (isinstance(matcher, Mapping) and set(matcher) == {"use", "costs"} and matcher["use"] == "HungarianMatcher"):
        return False
    return _are_terms(matcher["costs"], _DETR_COSTS) and _are_terms(description["losses"], _DETR_LOSSES)


def _are_terms(terms: object, known: _Ranges) -> bool:
    """Return True for a list of different known terms with valid parameters."""
    if not (isinstance(terms, list) and terms and all(isinstance(term, Mapping) for term in terms)):
        return False
    names = [str(term.get("use")) for term in terms]
    return len(set(names)) == len(names) and all(
        name in known and _are_parameters(term, known[name]) for name, term in zip(names, terms, strict=True)
    )


def _are_parameters(term: Mapping[str, object], ranges: Mapping[str, tuple[float, float]]) -> bool:
    parameters = {key: value for key, value in term.items() if key != "use"}
    return set(parameters) <= set(ranges) and all(
        isinstance(value, int | float) and ranges[key][0] <= value <= ranges[key][1]
        for key, value in parameters.items()
    )


def _is_named_augmentation(section: object) -> bool:
    if not isinstance(section, Mapping) or section.get("mixing_epochs") is not None:
        return section is None
    return section.get("augment", "light") in _NAMED_AUGMENTATIONS


def _apply(values: dict[str, Any], overrides: Sequence[str]) -> tuple[str, ...]:
    """Set the overrides in the values; returns what is wrong with them."""
    return tuple(problem for override in overrides if (problem := _override(values, override)))


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
