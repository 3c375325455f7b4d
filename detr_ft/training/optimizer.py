"""The optimizer: AdamW in a few named groups, each part of the model at its own rate, and a table that says which."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedModel

from detr_ft.errors import InputError
from detr_ft.models.families import Family, family_of
from detr_ft.models.freeze import trainable_counts
from detr_ft.training.settings import OptimSettings, TrainSettings

_SECTIONS = ("backbone", "encoder", "decoder", "heads")  # from the image to the answer
_LAST_NORM = (_SECTIONS.index("decoder"), 10**6)  # after all of the decoder's layers, beside the heads


def build_optimizer(model: PreTrainedModel, train: TrainSettings, optim: OptimSettings) -> AdamW:
    """AdamW over the parameters that train, those of one rate and one decay in one group, the heads' group last.

    A section without a rate of its own learns at `train.learning_rate` (Carion et al., ECCV 2020, section 4, gives the
    backbone a lower one). With `layer_decay` x, a layer k layers below the heads learns at x^k of its section's rate
    (Clark et al., ICLR 2020, appendix A; Bao et al., ICLR 2022). Raises InputError as `refuse_rates` does.
    """
    refuse_rates(model, optim)
    groups: dict[tuple[float, float], _Group] = {}
    family = family_of(model)
    below, spared = _distances(model), _without_decay(model)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        place = _place(family, name)
        rate = (_own_rate(optim, place.section) or train.learning_rate) * optim.layer_decay ** below[place.layer]
        decay = 0.0 if id(parameter) in spared else train.weight_decay
        label = place.section if optim.layer_decay == 1 else place.label
        groups.setdefault((rate, decay), _Group([], [])).add(parameter, place.layer, label)
    return AdamW(
        [
            {
                "name": group.name + (" without decay" if decay < train.weight_decay else ""),
                "params": group.parameters,
                "lr": rate,
                "weight_decay": decay,
            }
            for (rate, decay), group in sorted(groups.items(), key=lambda one: (one[1].last, -one[0][1]))
        ],
        fused=True,
    )


def refuse_rates(model: PreTrainedModel, optim: OptimSettings) -> None:
    """Raise InputError for every rate that is given to a section that is frozen, or that the model lacks."""
    problems = []
    family = family_of(model)
    for section in _SECTIONS:
        if _own_rate(optim, section) is None:
            continue
        train = [
            parameter.requires_grad for name, parameter in model.named_parameters() if _is_of(family, name, section)
        ]
        if not train:
            problems.append(f"optim.{section}_learning_rate: the model has no {section}; leave the rate out")
        elif not any(train):
            problems.append(
                f"optim.{section}_learning_rate: {section} is frozen (model.freeze), so it learns at no rate; "
                "leave the rate out, or let it train"
            )
    if problems:
        raise InputError(problems)


def training_table(model: PreTrainedModel, optimizer: Optimizer) -> str:
    """For each part of the model: how many of its parameters train, of how many, at which rates and decay."""
    held = {id(one): group for group in optimizer.param_groups for one in group["params"]}
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault(family_of(model).part_of(name).name, []).extend(
            [held[id(parameter)]] if id(parameter) in held else []
        )
    rows = [
        (part, f"{training:,}", f"{total:,}", _span(groups[part], "initial_lr"), _span(groups[part], "weight_decay"))
        for part, (training, total) in trainable_counts(model).items()
    ]
    rows = [("part", "train", "of", "learning rate", "weight decay"), *rows]
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    )


def rates(optimizer: Optimizer) -> dict[str, float]:
    """The learning rate of each group now, by its name."""
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def logged_rates(optimizer: Optimizer) -> dict[str, float]:
    """For a row of the log: the highest learning rate now, and where groups have others, that of each."""
    of_groups = rates(optimizer)
    apart = of_groups if len(set(of_groups.values())) > 1 else {}
    return {"learning_rate": max(of_groups.values()), **{f"learning_rate_{name}": rate for name, rate in apart.items()}}


@dataclass(frozen=True)
class _Place:
    """Where a parameter stands: its section, its layer in the order of the model, and what the layer is called."""

    section: str
    layer: tuple[int, int]
    label: str


@dataclass
class _Group:
    parameters: list[Tensor]
    labels: list[str]
    last: tuple[int, int] = (-1, -1)

    def add(self, parameter: Tensor, layer: tuple[int, int], label: str) -> None:
        self.parameters.append(parameter)
        self.labels += [] if label in self.labels else [label]
        self.last = max(self.last, layer)

    @property
    def name(self) -> str:
        return "+".join(self.labels)


def _place(family: Family, name: str) -> _Place:
    part, section = family.part_of(name).name, family.part_of(name).section
    if part.startswith("backbone"):
        stage = re.search(r"stage(\d+)$", part)
        return _Place("backbone", (0, int(stage[1]) if stage else 0), part)
    floor = _SECTIONS.index(section)
    layer = re.search(r"\.layers\.(\d+)\.", name)
    if section == "heads":
        return _Place(section, (floor, 0), section)
    if part == "decoder" and layer is None:
        return _Place(section, _LAST_NORM, "decoder.norm")
    number = int(layer[1]) if layer else 0  # what a section reads is as far from the heads as its first layer
    return _Place(section, (floor, number), f"{section}.{number}")


def _distances(model: PreTrainedModel) -> dict[tuple[int, int], int]:
    """How many layers each layer is below the heads, those counted that don't train."""
    heads = (_SECTIONS.index("heads"), 0)
    family = family_of(model)
    layers = {heads, *(_place(family, name).layer for name, _ in model.named_parameters())} - {_LAST_NORM}
    return {_LAST_NORM: 0} | {layer: distance for distance, layer in enumerate(sorted(layers, reverse=True))}


def _without_decay(model: nn.Module) -> set[int]:
    """The ids of parameters that weight decay leaves alone: norms, biases, embeddings.

    As BEiT and DETR's successors have it (RT-DETR of norms): a norm's scale and a query's place are no weights of
    features, and zero is nowhere to draw them to.
    """
    modules = [one for one in model.modules() if isinstance(one, nn.Embedding) or "norm" in type(one).__name__.lower()]
    flat = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return {
        id(parameter) for parameter in [*flat, *(one for held in modules for one in held.parameters(recurse=False))]
    }


def _own_rate(optim: OptimSettings, section: str) -> float | None:
    rate: float | None = getattr(optim, f"{section}_learning_rate")
    return rate


def _is_of(family: Family, name: str, section: str) -> bool:
    """Whether a parameter is of the section by its own name: a frozen encoder is frozen, whatever its projection does."""
    part = family.part_of(name)
    return part.section == section and (section == "heads" or part.name.split(".")[0] == section)


def _span(groups: list[dict[str, Any]], key: str) -> str:
    """`1e-05`, `1e-06 to 1e-05`, or a dash where nothing trains."""
    values = sorted({group.get(key, group["lr"]) for group in groups})  # without a schedule nothing is initial
    return " to ".join(f"{value:.3g}" for value in dict.fromkeys([values[0], values[-1]])) if values else "-"
