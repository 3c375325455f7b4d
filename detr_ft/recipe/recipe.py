"""The recipe: one YAML file, typed; every mistake is told at once, with its line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from detr_ft.criterion.serialization import configure, describe
from detr_ft.criterion.set_criterion import SetCriterion, detr_criterion
from detr_ft.data.augmentation.builtin import BUILT_IN, NAMED, Augmentation, Mixing
from detr_ft.data.box_format import BoxFormatName
from detr_ft.errors import InputError
from detr_ft.training.settings import OptimSettings, TrainSettings
from detr_ft.utils.components import ConfigureError, build_object
from detr_ft.utils.yaml import Place, at, parse_yaml, read_located

_LARGEST_EDGE = 8192  # pixels: (8192 / 32)^2 places, and 65,536^2 pairs of them in the encoder's attention


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraSection(_Section):
    """Adapters in the place of training the whole transformer."""

    rank: int = Field(default=8, ge=1, le=256)
    alpha: int = Field(default=16, ge=1, description="what the adapters add is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1)


class ModelSection(_Section):
    """A checkpoint to start from, or an architecture to start from at random."""

    checkpoint: str | None = None
    revision: str | None = None
    pickled: bool = Field(
        default=False, description="weights may come from a pytorch_model.bin, where there is no other"
    )
    architecture: dict[str, Any] | None = None
    backbone: str | None = Field(default=None, description="a checkpoint that the architecture's backbone starts from")
    live_norms: bool = False
    freeze: list[str] = []
    synonyms: dict[str, str] | str | None = Field(
        default=None,
        description="what the checkpoint calls classes of the data, or a YAML file of such names beside the recipe",
    )
    num_queries: int | None = Field(default=None, ge=1, le=2000, description="left out: as many as the checkpoint has")
    decoder_layers: int | None = Field(default=None, ge=1, description="the first of the checkpoint's; left out: all")

    lora: LoraSection | None = Field(
        default=None, description="train adapters, heads and queries alone; needs detr-ft[lora]"
    )

    @model_validator(mode="after")
    def _one_start(self) -> ModelSection:
        if (self.checkpoint is None) == (self.architecture is None):
            raise ValueError("give either checkpoint (to fine-tune) or architecture (to start from random weights)")
        if self.backbone is not None and self.architecture is None:
            raise ValueError("backbone goes with architecture: a checkpoint has one")
        if self.live_norms and self.architecture is None:
            raise ValueError("live_norms goes with architecture: a checkpoint's norms are what it was trained with")
        for name in ("synonyms", "num_queries", "decoder_layers", "lora"):
            if getattr(self, name) is not None and self.checkpoint is None:
                raise ValueError(f"{name} goes with checkpoint: an architecture has nothing yet to keep")
        return self


class DataSection(_Section):
    """Where the images are and how they are shown to the model."""

    source: str
    box_format: BoxFormatName | None = Field(
        default=None, description="of the source's boxes; left out: as its format says, or as recognised"
    )
    validation_fraction: float = Field(
        default=0.15, gt=0, lt=1, description="used where the data has no validation split"
    )
    split_seed: int | None = Field(
        None,
        ge=0,
        description="draws the images that are held out; None: train.seed does. With it fixed, seeds can be compared",
    )
    fold: str | None = Field(
        default=None, pattern=r"^[1-9]\d*/[1-9]\d*$", description="k/n: hold out the k-th of n parts of the train split"
    )
    longest_edge: int | None = Field(default=None, ge=32, description="left out: as the checkpoint's processor has it")
    augment: str | dict[str, Any] = Field(
        default="light", description="none, light, detr, strong, or {use: Light, jitter: 0}, {use: 'mine.py:Mine'}"
    )
    bad_images: Literal["raise", "skip"] = Field(
        default="raise", description="of images that can't be read: stop before training, or go on without them"
    )
    max_bad_fraction: float = Field(
        default=0.01, ge=0, le=1, description="with skip, more than that stops all the same"
    )
    mixing_epochs: int | None = Field(
        default=None, ge=0, description="images made of several come in these first epochs; left out: three quarters"
    )
    repeat_threshold: float | None = Field(
        default=None, gt=0, le=1, description="classes in a smaller fraction of the images come more often"
    )

    @field_validator("longest_edge")
    @classmethod
    def _edge_is_payable(cls, edge: int | None) -> int | None:
        if edge is not None and edge > _LARGEST_EDGE:
            raise ValueError(
                f"{_LARGEST_EDGE} pixels are the most: attention between all places of such an image has 4.3 billion "
                "pairs already; cut larger images into tiles"
            )
        return edge

    @property
    def fold_of(self) -> tuple[int, int] | None:
        """Which of how many folds is held out, from 1."""
        if self.fold is None:
            return None
        number, of = map(int, self.fold.split("/"))
        return number, of

    @model_validator(mode="after")
    def _fold_exists(self) -> DataSection:
        if self.fold_of is not None and not (self.fold_of[1] >= 2 and self.fold_of[0] <= self.fold_of[1]):
            raise ValueError(f"fold {self.fold}: of two folds or more, one of them, as in 1/5")
        return self


class HubSection(_Section):
    """Where `detr-ft push` puts the run when no name is given."""

    repo_id: str | None = None
    private: bool = True
    license: str | None = Field(default=None, description="of the model, for its card: apache-2.0, cc-by-4.0 ...")


class Recipe(_Section):
    """A whole run: model, data, criterion, training. See `load_recipe`."""

    model: ModelSection
    data: DataSection
    criterion: dict[str, Any] | None = None
    train: TrainSettings
    optim: OptimSettings = OptimSettings()
    hub: HubSection = HubSection()
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """Where the recipe's file lies, and the code beside it."""
        return self._folder

    def build_augmentation(self) -> Augmentation | None:
        """The augmentation that the recipe describes. Raises ConfigureError."""
        return _augmentation(self.data.augment, self.folder)

    def build_criterion(self, folder: Path = Path()) -> SetCriterion:
        """The criterion that the recipe describes, DETR's own where it says nothing. Raises ConfigureError."""
        return configure(self.criterion, folder) if self.criterion is not None else detr_criterion()

    def synonyms(self) -> dict[str, str]:
        """What the checkpoint calls classes of the data. Raises InputError for a file that doesn't say."""
        told = self.model.synonyms
        if not isinstance(told, str):
            return told or {}
        values, _ = read_located(self.folder / told)
        faults = [
            f"{told}: {ours}: {theirs}: two names are wanted"
            for ours, theirs in values.items()
            if not isinstance(theirs, str)
        ]
        if faults:
            raise InputError(faults)
        return {str(ours): theirs for ours, theirs in values.items()}

    def pinned(self, revision: str | None) -> Recipe:
        """The same with the model's revision as it was resolved: a branch moves, a commit doesn't."""
        if revision is None or self.model.checkpoint is None:
            return self
        return self.model_copy(update={"model": self.model.model_copy(update={"revision": revision})})

    def to_yaml(self, criterion: SetCriterion) -> str:
        """The recipe as resolved: every value written out, with nothing left to a default."""
        values = self.model_dump(mode="json") | {"criterion": describe(criterion)}
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, SetCriterion]:
    """The recipe in a YAML file with `section.key=value` overrides, and its criterion.

    Raises InputError with every mistake of the file, each with its line, and of the overrides.
    """
    values, lines = read_located(path)
    problems = [problem for override in overrides if (problem := _override(values, override))]
    found = [*_criterion_problems(values, path.parent), *_augmentation_problems(values, path.parent)]
    problems += [at(path, lines, place, message) for place, message in found]
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems += [at(path, lines, *_explain(one)) for one in error.errors()]
        raise InputError(problems) from error
    recipe._folder = path.parent
    if problems:
        raise InputError(problems)
    return recipe, recipe.build_criterion(path.parent)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file as it stands, its criterion neither built nor looked at. Raises InputError."""
    values, lines = read_located(path)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InputError([at(path, lines, *_explain(one)) for one in error.errors()]) from error


def _criterion_problems(values: Mapping[str, Any], folder: Path) -> list[tuple[Place, str]]:
    description = values.get("criterion")
    if not isinstance(description, Mapping):
        return []
    try:
        configure(description, folder)
    except ConfigureError as error:
        return [(("criterion", *place), message) for place, message in error.problems]
    return []


def _augmentation(described: object, folder: Path) -> Augmentation | None:
    if isinstance(described, str):
        if described not in NAMED:
            hint = difflib.get_close_matches(described, NAMED, 1)
            there = f"did you mean {hint[0]}?" if hint else f"there are {', '.join(NAMED)}, and {{use: ...}}"
            raise ConfigureError([((), f"there is no {described!r}; {there}")])
        return NAMED[described]
    augmentation: Augmentation = build_object(described, BUILT_IN, folder)
    return augmentation


def _augmentation_problems(values: Mapping[str, Any], folder: Path) -> list[tuple[Place, str]]:
    section = values.get("data")
    described = section.get("augment") if isinstance(section, Mapping) else None
    if not isinstance(described, (str, Mapping)):
        return []
    try:
        augmentation = _augmentation(described, folder)
    except ConfigureError as error:
        return [(("data", "augment", *place), message) for place, message in error.problems]
    if section is not None and section.get("mixing_epochs") is not None and not isinstance(augmentation, Mixing):
        what = "nothing mixes images: data.augment is strong, or one of your own that has without_mixing()"
        return [(("data", "mixing_epochs"), what)]
    return []


def _override(values: dict[str, Any], override: str) -> str | None:
    """Set `section.key=value` in the values; a message where it can't be done."""
    dotted, separator, text = override.partition("=")
    *sections, key = dotted.split(".")
    if not separator or not sections or not key:
        return f"{override}: an override is written section.key=value, for example train.learning_rate=5e-5"
    node: Any = values
    for section in sections:
        node = node.setdefault(section, {}) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        return f"{override}: {'.'.join(sections)} holds no keys"
    try:
        node[key] = parse_yaml(text, override)
    except InputError:
        return f"{override}: {text!r} is not a YAML value"
    return None


def _explain(error: Any) -> tuple[Place, str]:
    place: Place = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        known = _known_keys(place[:-1])
        hint = difflib.get_close_matches(str(place[-1]), known, 1)
        return place, "unknown key" + (f"; did you mean {hint[0]}?" if hint else f"; there are {', '.join(known)}")
    if error["type"] == "missing":
        return place, "is missing"
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(error["input"], dict) else f", got {error['input']!r}"
    return place, message[0].lower() + message[1:] + shown


def _known_keys(place: Place) -> list[str]:
    model: type[BaseModel] = Recipe
    for key in place:
        annotation = model.model_fields[str(key)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
