"""A model's classes: one map of labels from data to card, and a class head fitted to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from detr_ft.errors import InputError
from detr_ft.models.metadata import own_block

_SPREAD = 0.02  # of a new class's weights, in standard deviations of the old ones


@dataclass(frozen=True)
class LabelMap:
    """The names of the classes by index, and for each that a checkpoint knew, the name that it had there."""

    names: tuple[str, ...]
    reused: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: PreTrainedModel, checkpoint: str) -> LabelMap:
        """That of a model, whose head has a row for each name. Raises InputError where its config contradicts itself."""
        config = model.config
        told = {int(index): name for index, name in config.id2label.items()}
        faults = []
        if sorted(told) != list(range(len(told))):
            faults.append(f"id2label has the ids {sorted(told)}, and not 0 to {len(told) - 1}")
        else:
            # Names may come twice, as COCO's N/A does: label2id then holds one of their ids.
            wrong = [name for name, index in (config.label2id or {}).items() if told.get(int(index)) != name]
            faults += [f"label2id and id2label differ at {name!r}" for name in wrong[:3]]
        if faults:
            raise InputError([f"{checkpoint}: config.json: {fault}" for fault in faults])
        kept = own_block(config).get("labels") or {}
        return cls(tuple(told[index] for index in range(len(told))), dict(kept.get("reused") or {}))

    @property
    def new(self) -> list[str]:
        """The classes that no checkpoint knew."""
        return [name for name in self.names if name not in self.reused]

    def as_json(self) -> dict[str, Any]:
        """Where the rows of the class head came from, for the `detr_ft` block of a config."""
        return {"reused": dict(self.reused), "new": self.new}


def fit_labels(
    model: PreTrainedModel,
    names: Sequence[str],
    counts: Mapping[str, int] | None = None,
    synonyms: Mapping[str, str] | None = None,
    seed: int = 0,
) -> LabelMap:
    """Give the model the classes `names`, in this order, with the weights it has for those it knows by name.

    `synonyms` says for names of the data what the checkpoint calls them. No-object keeps its row, so what the model knows of
    "there is something here" is kept. A class it does not know starts from the mean of the known ones, give or take a
    little, with a bias by its share of the boxes where `counts` says how many there are of each: as a prior (Lin et al.,
    Focal loss, ICCV 2017, section 3.3). Raises InputError for a synonym that neither side knows.
    """
    index_of = {name: index for index, name in sorted(model.config.id2label.items(), reverse=True)}
    known_as = _known_as(names, index_of, synonyms or {})
    fitted = LabelMap(tuple(names), known_as)
    if [model.config.id2label[index] for index in sorted(model.config.id2label)] == list(names) and not synonyms:
        return fitted
    old = _head(model)
    weight, bias = old.weight.data, old.bias.data
    generator = torch.Generator().manual_seed(seed)
    new = nn.Linear(old.in_features, len(names) + 1).to(weight)
    noise = torch.randn(new.weight.shape, generator=generator).to(weight)
    prior = torch.tensor(_prior(names, counts)).to(bias)
    with torch.no_grad():
        new.weight.copy_(weight[:-1].mean(0) + _SPREAD * weight.std() * noise)
        new.bias[:-1].copy_(bias[:-1].mean() + prior)
        for row, name in enumerate(names):
            if name in known_as:
                new.weight[row] = weight[index_of[known_as[name]]]
                new.bias[row] = bias[index_of[known_as[name]]]
        new.weight[-1], new.bias[-1] = weight[-1], bias[-1]
    _put_head(model, new)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    return fitted


def _known_as(names: Sequence[str], index_of: Mapping[str, int], synonyms: Mapping[str, str]) -> dict[str, str]:
    faults = [f"model.synonyms: the data has no class {name!r}" for name in synonyms if name not in names]
    faults += [
        f"model.synonyms: the checkpoint has no class {theirs!r}; it has {', '.join(list(index_of)[::-1][:20])}"
        for theirs in synonyms.values()
        if theirs not in index_of
    ]
    if faults:
        raise InputError(faults)
    wanted = {name: synonyms.get(name, name) for name in names}
    return {name: theirs for name, theirs in wanted.items() if theirs in index_of}


def _prior(names: Sequence[str], counts: Mapping[str, int] | None) -> list[float]:
    """For each class the logarithm of its boxes over their geometric mean: nothing where they are equally many."""
    if counts is None:
        return [0.0] * len(names)
    logs = [math.log(max(1, counts.get(name, 0))) for name in names]
    mean = sum(logs) / len(logs)
    return [one - mean for one in logs]


def _head(model: PreTrainedModel) -> nn.Linear:
    """The layer that gives the logits: the head itself, or the last of its layers."""
    head: Any = model.class_labels_classifier
    last: nn.Linear = head if isinstance(head, nn.Linear) else head.layers[-1]
    return last


def _put_head(model: PreTrainedModel, new: nn.Linear) -> None:
    if isinstance(model.class_labels_classifier, nn.Linear):
        model.class_labels_classifier = new
    else:
        model.class_labels_classifier.layers[-1] = new
