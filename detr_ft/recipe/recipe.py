"""The recipe: everything that describes a run, as typed values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from detr_ft.data.box_format import BoxFormatName
from detr_ft.data.sources.registry import UnlabeledPolicy
from detr_ft.errors import InputError
from detr_ft.training.settings import OptimSettings, TrainSettings
from detr_ft.utils.hub import check_name
from detr_ft.utils.yaml import read_located

IN_MEMORY = "memory:"  # begins the source of data that were given as objects
_MAX_EDGE_PX = 8192  # (8192 / 32)^2 positions, and 65,536^2 pairs of them in the encoder's attention
_MIXING_FRACTION = 0.75  # of the epochs


def _path_as_text(value: object) -> object:
    """Return a path as text, and any other value as it is."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraSection(_Section):
    """Adapters that are trained instead of the whole transformer."""

    rank: int = Field(default=8, ge=1, le=256)
    alpha: int = Field(default=16, ge=1, description="the adapters' output is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1)


class ModelSection(_Section):
    """A checkpoint to fine-tune, or an architecture to train from random weights."""

    checkpoint: str | None = None
    revision: str | None = None
    pickled: bool = Field(
        default=False, description="also read weights from pytorch_model.bin if there is no other file"
    )
    architecture: dict[str, Any] | None = None
    backbone: str | None = Field(default=None, description="checkpoint of the architecture's backbone")
    live_norms: bool = False
    freeze: list[str] = []
    synonyms: dict[str, str] | str | None = Field(
        default=None,
        description="the checkpoint's names of classes of the data, or a YAML file of them beside the recipe",
    )
    num_queries: int | None = Field(default=None, ge=1, le=2000, description="default: the checkpoint's")
    decoder_layers: int | None = Field(default=None, ge=1, description="the first of the checkpoint's; default: all")

    lora: LoraSection | None = Field(
        default=None, description="train adapters, heads and queries only; needs detr-ft[lora]"
    )

    @field_validator("checkpoint", "backbone", "synonyms", mode="before")
    @classmethod
    def _path_as_text(cls, value: object) -> object:
        return _path_as_text(value)

    @model_validator(mode="after")
    def _one_start(self) -> ModelSection:
        if (self.checkpoint is None) == (self.architecture is None):
            raise ValueError("give either checkpoint (to fine-tune) or architecture (to start from random weights)")
        if self.backbone is not None and self.architecture is None:
            raise ValueError("backbone needs architecture: a checkpoint has a backbone")
        if self.live_norms and self.architecture is None:
            raise ValueError("live_norms needs architecture: a checkpoint was trained with frozen norms")
        for name in ("synonyms", "num_queries", "decoder_layers", "lora"):
            if getattr(self, name) is not None and self.checkpoint is None:
                raise ValueError(f"{name} needs checkpoint: an architecture starts from random weights")
        return self


class DataSection(_Section):
    """The data set, its splits and how its images are presented to the model."""

    source: str
    box_format: BoxFormatName | None = Field(
        default=None, description="of the source's boxes; default: as its format defines, or as recognized"
    )
    images: str | None = Field(default=None, description="folder of the images; default: near the annotations")
    unlabeled: UnlabeledPolicy | None = Field(
        default=None,
        description="images with neither a label file nor a record; default: background for YOLO, skip for others",
    )
    validation_fraction: float = Field(
        default=0.15, gt=0, lt=1, description="used if the data have no validation split"
    )
    split_seed: int | None = Field(
        None,
        ge=0,
        description="seed of the random validation split; default: train.seed. Fix it to compare seeds",
    )
    fold: str | None = Field(
        default=None,
        pattern=r"^[1-9]\d*/[1-9]\d*$",
        description="k/n: validate on the k-th of n parts of the train split",
    )
    longest_edge: int | None = Field(default=None, ge=32, description="default: the size of the checkpoint's processor")
    augment: str | dict[str, Any] = Field(
        default="light", description="none, light, detr, strong, or {use: Light, jitter: 0}, {use: 'mine.py:Mine'}"
    )
    bad_images: Literal["raise", "skip"] = Field(
        default="raise", description="on unreadable images stop before training, or train without them"
    )
    max_bad_fraction: float = Field(
        default=0.01, ge=0, le=1, description="stop even with skip if a larger fraction of a split is unreadable"
    )
    mixing_epochs: int | None = Field(
        default=None, ge=0, description="number of first epochs with images made of several; default: three quarters"
    )
    repeat_threshold: float | None = Field(
        default=None, gt=0, le=1, description="repeat images of classes that occur in a smaller fraction of the images"
    )

    @field_validator("source", mode="before")
    @classmethod
    def _path_as_text(cls, value: object) -> object:
        return _path_as_text(value)

    @field_validator("longest_edge")
    @classmethod
    def _edge_is_affordable(cls, edge: int | None) -> int | None:
        if edge is not None and edge > _MAX_EDGE_PX:
            raise ValueError(
                f"must be at most {_MAX_EDGE_PX} pixels: attention over such an image has 4.3 billion pairs; "
                "cut larger images into tiles"
            )
        return edge

    @property
    def fold_of(self) -> tuple[int, int] | None:
        """The fold that is the validation split, counted from 1, and the number of folds."""
        if self.fold is None:
            return None
        number, of = map(int, self.fold.split("/"))
        return number, of

    @property
    def in_memory(self) -> bool:
        """True for data that were given as objects, which no other process can load."""
        return self.source.startswith(IN_MEMORY)

    @model_validator(mode="after")
    def _fold_exists(self) -> DataSection:
        if self.fold_of is not None and not (self.fold_of[1] >= 2 and self.fold_of[0] <= self.fold_of[1]):
            raise ValueError(f"fold {self.fold}: must be one of at least two folds, as in 1/5")
        return self


class HubSection(_Section):
    """The defaults of `detr-ft push`."""

    repo_id: str | None = None
    private: bool = True
    license: str | None = Field(default=None, description="of the model, for its card: apache-2.0, cc-by-4.0 ...")

    @field_validator("repo_id")
    @classmethod
    def _is_a_name(cls, repo_id: str | None) -> str | None:
        if repo_id is not None:
            try:
                check_name(repo_id)
            except InputError as error:
                raise ValueError(str(error)) from error
        return repo_id


class Recipe(_Section):
    """A whole run: model, data, criterion, training.

    `criterion` is a description as `detr_ft.criterion.serialization` writes it; None is that of the model's family. A
    recipe has values only: `detr_ft.recipe.load` builds the objects.
    """

    model: ModelSection
    data: DataSection
    criterion: dict[str, Any] | None = None
    train: TrainSettings
    optim: OptimSettings = OptimSettings()
    hub: HubSection = HubSection()
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The folder of the recipe's file and of the code beside it."""
        return self._folder

    def in_folder(self, folder: Path) -> Recipe:
        """Return the recipe with the folder of its file."""
        recipe = self.model_copy()
        recipe._folder = folder
        return recipe

    @property
    def split_seed(self) -> int:
        """The seed of the random validation split."""
        return self.train.seed if self.data.split_seed is None else self.data.split_seed

    @property
    def mixing_epochs(self) -> int:
        """The number of first epochs in which images are mixed."""
        given = self.data.mixing_epochs
        return round(_MIXING_FRACTION * self.train.num_train_epochs) if given is None else given

    def synonyms(self) -> dict[str, str]:
        """Return the checkpoint's names of classes of the data. Raises InputError for an invalid file."""
        given = self.model.synonyms
        if not isinstance(given, str):
            return given or {}
        values, _ = read_located(self.folder / given)
        faults = [
            f"{given}: {ours}: {theirs}: must be the name of a class of the checkpoint. Write {ours}: NAME"
            for ours, theirs in values.items()
            if not isinstance(theirs, str)
        ]
        if faults:
            raise InputError(faults)
        return {str(ours): theirs for ours, theirs in values.items()}

    def pinned(self, revision: str | None) -> Recipe:
        """Return the recipe with the commit of the model's revision: a branch moves, a commit doesn't."""
        if revision is None or self.model.checkpoint is None:
            return self
        return self.model_copy(update={"model": self.model.model_copy(update={"revision": revision})})

    def to_yaml(self, criterion: Mapping[str, Any] | None = None) -> str:
        """Return the recipe as YAML with every default; `criterion` replaces its description if given."""
        values = self.model_dump(mode="json")
        values["criterion"] = dict(criterion) if criterion is not None else values["criterion"]
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
