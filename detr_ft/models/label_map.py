"""Fit the classes of a model to those of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from reprlib import repr as shortened
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from detr_ft.errors import InputError
from detr_ft.models.families import family_of
from detr_ft.models.metadata import read_labels

_NEW_ROW_NOISE = 0.02  # in standard deviations of the existing weights
_MAX_NAMED_CLASSES = 20  # in a message
_MAX_COMPARED_CLASSES = 5  # in a message


@dataclass(frozen=True)
class LabelMap:
    """The names of the classes by index, and for each class that a checkpoint had, its name there."""

    names: tuple[str, ...]
    reused: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: PreTrainedModel, checkpoint: str) -> LabelMap:
        """Return the map in the config of a model. Raises InputError if the config contradicts itself."""
        config = model.config
        name_of = {int(index): name for index, name in config.id2label.items()}
        faults = []
        if sorted(name_of) != list(range(len(name_of))):
            faults.append(f"id2label must have the ids 0 to {len(name_of) - 1}, got {shortened(sorted(name_of))}")
        else:
            # Names may occur twice, as N/A of COCO does: label2id then has one of their ids.
            wrong = [name for name, index in (config.label2id or {}).items() if name_of.get(int(index)) != name]
            faults += [f"label2id and id2label differ at {name!r}" for name in wrong[:3]]
        if faults:
            raise InputError([f"{checkpoint}: config.json: {fault}. Correct the file." for fault in faults])
        return cls(tuple(name_of[index] for index in range(len(name_of))), read_labels(config))

    @property
    def new(self) -> list[str]:
        """The classes that no checkpoint had."""
        return [name for name in self.names if name not in self.reused]


def check_class_head(model: PreTrainedModel) -> None:
    """Raise InputError if the class head and the config of a model have different numbers of classes."""
    family, classes = family_of(model), model.config.num_labels
    expected = classes + (family.activation == "softmax")
    for path in family.class_layers:
        rows = getattr(model.get_submodule(path), "out_features", expected)
        if rows != expected:
            raise InputError(
                f"model: {path} has {rows} rows, and {classes} classes in the config need {expected}. Give a "
                "model the classes of the data with detr_ft.fit_labels(model, names)."
            )


def check_classes(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Raise InputError unless the classes of a model are those of the data, in the same order."""
    own = LabelMap.of(model, "model").names
    if list(own) != list(names):
        raise InputError(
            f"model: its classes are not those of the data: {_shorten(own)}, and {_shorten(names)} in the data. Give it the "
            "classes of the data before training: detr_ft.fit_labels(model, names)."
        )


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_COMPARED_CLASSES} more" if len(names) > _MAX_COMPARED_CLASSES else ""
    return f"{len(names)} ({', '.join(names[:_MAX_COMPARED_CLASSES])}{more})"


def fit_labels(
    model: PreTrainedModel,
    names: Sequence[str],
    counts: Mapping[str, int] | None = None,
    synonyms: Mapping[str, str] | None = None,
    seed: int = 0,
) -> LabelMap:
    """Give the model the classes `names`, in this order, in place.

    Classes that it has by name keep their weights. `synonyms` maps names of the data to names of the checkpoint.
    No-object keeps its row. A new class starts from the mean of the old ones with a little noise; with `counts`, the
    number of boxes of each class, its bias is a prior (Lin et al., Focal loss, ICCV 2017, section 3.3). Raises
    InputError for a synonym that data or checkpoint lack.
    """
    index_of = {name: index for index, name in sorted(model.config.id2label.items(), reverse=True)}
    reused = _reused(names, index_of, synonyms or {})
    fitted = LabelMap(tuple(names), reused)
    old_names = [model.config.id2label[index] for index in sorted(model.config.id2label)]
    if old_names == list(names) and not synonyms:
        return fitted
    rows = [index_of[reused[name]] if name in reused else None for name in names]
    prior = _prior(names, counts)
    for path in family_of(model).class_layers:
        model.set_submodule(path, _fitted_layer(model.get_submodule(path), len(old_names), rows, prior, seed))
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    return fitted


def _fitted_layer(old: Any, classes: int, rows: Sequence[int | None], prior: Sequence[float], seed: int) -> nn.Linear:
    """Return a linear layer with a row for each class: a copy of an old row, or a new one for None.

    Rows of the old layer after its classes (no-object) stay.
    """
    weight, bias = old.weight.data, old.bias.data
    new = nn.Linear(old.in_features, len(rows) + len(weight) - classes).to(weight)
    noise = torch.randn(new.weight.shape, generator=torch.Generator().manual_seed(seed)).to(weight)
    with torch.no_grad():
        new.weight.copy_(weight[:classes].mean(0) + _NEW_ROW_NOISE * weight.std() * noise)
        new.bias[: len(rows)].copy_(bias[:classes].mean() + torch.tensor(prior).to(bias))
        for row, old_row in enumerate(rows):
            if old_row is not None:
                new.weight[row], new.bias[row] = weight[old_row], bias[old_row]
        new.weight[len(rows) :], new.bias[len(rows) :] = weight[classes:], bias[classes:]
    return new


def _reused(names: Sequence[str], index_of: Mapping[str, int], synonyms: Mapping[str, str]) -> dict[str, str]:
    faults = [f"model.synonyms: the data has no class {name!r}. Remove it." for name in synonyms if name not in names]
    known = ", ".join(list(index_of)[::-1][:_MAX_NAMED_CLASSES])
    faults += [
        f"model.synonyms: the checkpoint has no class {old!r}. Use one of {known}."
        for old in synonyms.values()
        if old not in index_of
    ]
    if faults:
        raise InputError(faults)
    old_names = {name: synonyms.get(name, name) for name in names}
    return {name: old for name, old in old_names.items() if old in index_of}


def _prior(names: Sequence[str], counts: Mapping[str, int] | None) -> list[float]:
    """Return for each class the logarithm of its boxes over their geometric mean; 0 without counts."""
    if counts is None:
        return [0.0] * len(names)
    logs = [math.log(max(1, counts.get(name, 0))) for name in names]
    mean = sum(logs) / len(logs)
    return [value - mean for value in logs]
