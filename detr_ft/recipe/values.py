"""The plain values of a recipe file: overrides, and every mistake in its keys, without loading torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from detr_ft.errors import InputError
from detr_ft.recipe.recipe import Recipe
from detr_ft.utils.arguments import check_list_of_texts
from detr_ft.utils.keys import KEY_OF_ALIAS, closest, similar_to, words_for
from detr_ft.utils.yaml import KeyPath, located_message, nearest_line, parse_yaml, read_located

Problem = tuple[KeyPath, str]
_MAX_EXPLAINED = 200  # mistakes with a suggestion, which takes a comparison with all keys
_MAX_SECTIONS = 16  # of an override
_MIN_SIMILARITY = 0.7  # of a key without its section: there are many keys
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
class _Applied:
    """The keys that overrides and changes set, and what is wrong with overrides that could not be applied.

    `overrides` has the text of the override of each key, `sections` that of each section that an override created.
    """

    problems: tuple[str, ...] = ()
    overrides: Mapping[KeyPath, str] = field(default_factory=dict)
    sections: Mapping[KeyPath, str] = field(default_factory=dict)
    changes: frozenset[KeyPath] = frozenset()

    def override_of(self, place: KeyPath) -> tuple[str, KeyPath] | None:
        """Return the override that set the value at a place, with the keys below it; None if there is none."""
        if place in self.sections:
            return self.sections[place], ()
        keys = next((place[:length] for length in range(len(place), 0, -1) if place[:length] in self.overrides), None)
        return None if keys is None else (self.overrides[keys], place[len(keys) :])


@dataclass(frozen=True)
class RecipeValues:
    """The values of a recipe, not yet validated, and their origins: file, overrides, arguments."""

    values: dict[str, Any]
    folder: Path
    applied: _Applied
    file: Path | None = None
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def validate(self) -> tuple[Recipe | None, list[Problem]]:
        """Return the typed recipe, None if it is invalid, and every mistake in its keys and values."""
        try:
            return Recipe.model_validate(self.values).in_folder(self.folder), []
        except ValidationError as error:
            errors = error.errors()
            brief = [(tuple(one["loc"]), _reason(one)) for one in errors[_MAX_EXPLAINED:]]
            return None, [*map(_explain, errors[:_MAX_EXPLAINED]), *brief]

    def messages(self, problems: Sequence[Problem]) -> list[str]:
        """Return messages in the order of their lines in the file; those of overrides are last."""
        located: list[tuple[int, str]] = []
        of_overrides = list(self.applied.problems)
        for place, message in problems:
            override = self.applied.override_of(place)
            if override is not None:
                text, below = override
                of_overrides.append(": ".join([f"override {text}", *([_dotted(below)] if below else []), message]))
            elif self.file is None or place in self.applied.changes:
                located.append((0, f"{_dotted(place)}: {message}"))
            else:
                line = nearest_line(self.lines, place) or 0
                located.append((line, located_message(self.file, self.lines, place, message)))
        return [*(message for _, message in sorted(located, key=lambda item: item[0])), *of_overrides]


def read_values(path: Path, overrides: Sequence[str] = (), changes: Changes | None = None) -> RecipeValues:
    """Return the values of a YAML file with changes and overrides.

    Raises InputError for a file that can't be parsed.
    """
    values, lines = read_located(path)
    return RecipeValues(values, path.parent, _apply(values, overrides, changes or {}), path, lines)


def given_values(
    values: dict[str, Any], overrides: Sequence[str] = (), changes: Changes | None = None, folder: Path = Path()
) -> RecipeValues:
    """Return plain values with changes and overrides."""
    return RecipeValues(values, folder, _apply(values, overrides, changes or {}))


def check_keys(path: Path, overrides: Sequence[str] = ()) -> Recipe | None:
    """Return the recipe in a YAML file if it has DETR's own criterion and a named augmentation, else None.

    `detr_ft.recipe.load` has to build the others to find their mistakes, which loads torch. Raises InputError with every
    mistake.
    """
    read = read_values(path, overrides)
    if not (_is_detr_criterion(read.values.get("criterion")) and _is_named_augmentation(read.values.get("data"))):
        return None
    recipe, problems = read.validate()
    messages = read.messages(problems)
    if recipe is None or messages:
        raise InputError(messages)
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


def _apply(values: dict[str, Any], overrides: Sequence[str], changes: Changes) -> _Applied:
    """Set changes and then overrides in the values."""
    check_list_of_texts("overrides", overrides, f"[{str(overrides)!r}]")
    for name, section in changes.items():
        before = values.get(name)
        values[name] = {**(before if isinstance(before, dict) else {}), **section} if section is not None else None
    problems: list[str] = []
    keys: dict[KeyPath, str] = {}
    created: dict[KeyPath, str] = {}
    for override in overrides:
        problem = _override(values, override, keys, created)
        if problem:
            problems.append(f"override {override}: {problem}")
    changed = frozenset((name, key) for name, section in changes.items() for key in section or ())
    return _Applied(tuple(problems), keys, created, changed)


def _override(
    values: dict[str, Any], override: object, keys: dict[KeyPath, str], created: dict[KeyPath, str]
) -> str | None:
    """Set `section.key=value` in the values and record its keys; return what is wrong with it."""
    if not isinstance(override, str):
        return "must be a text, section.key=value, for example train.learning_rate=5e-5"
    dotted, separator, text = override.partition("=")
    *sections, key = dotted.split(".")
    if separator and key and not sections and (similar := similar_key(key)):
        return f"its section is missing; did you mean {similar}={text}?"
    if not separator or not sections or not key:
        return "must be written section.key=value, for example train.learning_rate=5e-5"
    if len(sections) > _MAX_SECTIONS:
        return f"has {len(sections)} sections, more than any key of a recipe"
    node: Any = values
    for depth, section in enumerate(sections, start=1):
        if isinstance(node, list):
            break
        if isinstance(node, dict) and section not in node:
            created[tuple(sections[:depth])] = override
        node = node.setdefault(section, {}) if isinstance(node, dict) else None
    if isinstance(node, list):
        return "items of a list cannot be overridden. Change them in the recipe, or override the whole list"
    if not isinstance(node, dict):
        return f"{'.'.join(sections)} has no keys"
    try:
        node[key] = parse_yaml(text, override)
    except InputError:
        return f"{text!r} is not a YAML value"
    keys[(*sections, key)] = override
    return None


def similar_key(name: str) -> str | None:
    """Return the key with its section that a name without a section probably means, such as `train.seed`."""
    sections = {section: _keys((section,)) for section in _keys(())}
    for section, keys in sections.items():
        if name in keys or KEY_OF_ALIAS.get(name) in keys:
            return f"{section}.{KEY_OF_ALIAS.get(name, name) if name not in keys else name}"
    candidates = {
        word: f"{section}.{key}" for section, keys in sections.items() for word, key in words_for(keys).items()
    }
    similar = closest(name, candidates, _MIN_SIMILARITY)
    return candidates[similar] if similar else None


def _dotted(place: KeyPath) -> str:
    return ".".join(map(str, place))


def _explain(error: Any) -> Problem:
    place: KeyPath = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        keys = _keys(place[:-1])
        key = str(place[-1])
        hint = similar_to(key, keys) or (similar_key(key) if len(place) == 1 else None)
        return place, _reason(error) + (f"; did you mean {hint}?" if hint else f"; there are {', '.join(keys)}")
    return place, _reason(error)


def _reason(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "missing":
        return "is missing"
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(error["input"], dict) else f", got {error['input']!r}"
    return f"{message[0].lower()}{message[1:]}{shown}"


def _keys(place: KeyPath) -> list[str]:
    model: type[BaseModel] = Recipe
    for key in place:
        annotation = model.model_fields[str(key)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
