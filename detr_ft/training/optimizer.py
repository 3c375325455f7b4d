"""The optimizer, AdamW with a learning rate for each part of the model, and the schedule of the rates."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedModel, get_scheduler

from detr_ft.errors import InputError
from detr_ft.models.families import Family, family_of
from detr_ft.models.freeze import trainable_counts
from detr_ft.training.settings import OptimSettings, TrainSettings

logger = logging.getLogger(__name__)

_SECTIONS = ("backbone", "encoder", "decoder", "heads")  # in the order of the forward pass
_DECODER_NORM_LAYER = (_SECTIONS.index("decoder"), 10**6)  # after all layers of the decoder, beside the heads


def build_optimizer(model: PreTrainedModel, train: TrainSettings, optim: OptimSettings) -> AdamW:
    """Return AdamW with a group for each pair of learning rate and decay, the heads' group last.

    A section without a rate of its own learns at `train.learning_rate` (Carion et al., ECCV 2020, section 4, gives the
    backbone a lower one). With `layer_decay` x, a layer k layers below the heads learns at x^k of its section's rate
    (Clark et al., ICLR 2020, appendix A; Bao et al., ICLR 2022). `check_rates` reports rates without effect.
    """
    groups: dict[tuple[float, float], _Group] = {}
    family, distances, not_decayed = family_of(model), _distances(model), _without_decay(model)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        position = _position(family, name)
        rate = (_section_rate(optim, position.section) or train.learning_rate) * (
            optim.layer_decay ** distances[position.layer]
        )
        decay = 0.0 if id(parameter) in not_decayed else train.weight_decay
        label = position.section if optim.layer_decay == 1 else position.label
        groups.setdefault((rate, decay), _Group([], [])).add(parameter, position.layer, label)
    return AdamW(
        [
            {
                "name": group.name + (" without decay" if decay < train.weight_decay else ""),
                "params": group.parameters,
                "lr": rate,
                "weight_decay": decay,
            }
            for (rate, decay), group in sorted(groups.items(), key=lambda item: (item[1].last, -item[0][1]))
        ],
        fused=True,  # skips a step on the device where `found_inf` is 1
    )


def check_rates(model: PreTrainedModel, optim: OptimSettings) -> None:
    """Raise InputError for every rate of a section that is frozen or that the model lacks."""
    family, problems = family_of(model), []
    for section in _SECTIONS:
        if _section_rate(optim, section) is None:
            continue
        trained = [
            parameter.requires_grad for name, parameter in model.named_parameters() if _is_in(family, name, section)
        ]
        if not trained:
            problems.append(f"optim.{section}_learning_rate: the model has no {section}. Remove the rate")
        elif not any(trained):
            problems.append(
                f"optim.{section}_learning_rate: {section} is frozen (model.freeze). Remove the rate, or train the section"
            )
    if problems:
        raise InputError(problems)


def training_table(model: PreTrainedModel, optimizer: Optimizer) -> str:
    """Return a table of parts of the model: trained parameters, all, learning rates, weight decay."""
    group_of = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    family = family_of(model)
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, parameter in model.named_parameters():
        part = family.part_of(name).name
        groups.setdefault(part, []).extend([group_of[id(parameter)]] if id(parameter) in group_of else [])
    rows = [
        (part, f"{trained:,}", f"{total:,}", _range(groups[part], "initial_lr"), _range(groups[part], "weight_decay"))
        for part, (trained, total) in trainable_counts(model).items()
    ]
    rows = [("part", "train", "of", "learning rate", "weight decay"), *rows]
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    )


def rates(optimizer: Optimizer) -> dict[str, float]:
    """Return the present learning rate of each group, by its name."""
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def logged_rates(optimizer: Optimizer) -> dict[str, float]:
    """Return the entries of a log row: the highest learning rate, and that of each group if they differ."""
    by_group = rates(optimizer)
    different = by_group if len(set(by_group.values())) > 1 else {}
    return {"learning_rate": max(by_group.values()), **{f"learning_rate_{name}": rate for name, rate in different.items()}}  # fmt: skip


def build_schedule(optimizer: Optimizer, train: TrainSettings, steps: int) -> LRScheduler:
    """Return the schedule of a run of `steps` steps, which `go_to` moves after each step.

    `step` is DETR's own (Carion et al., ECCV 2020, section 4): a tenth of the rate after each of `lr_drop_epochs`.
    The others are those of transformers; here a polynomial ends at 0, like linear and cosine.
    """
    warmup = warmup_of(train, steps)
    if train.lr_scheduler_type == "step":
        drops = [round(epoch * steps / train.num_train_epochs) for epoch in train.lr_drop_epochs]
        return LambdaLR(optimizer, partial(_stepped, warmup=warmup, drops=drops))
    options = {"power": train.lr_power or 1.0, "lr_end": 0.0} if train.lr_scheduler_type == "polynomial" else None
    # A polynomial divides by the steps after the warm-up.
    schedule: LRScheduler = get_scheduler(train.lr_scheduler_type, optimizer, warmup, max(steps, warmup + 1), options)
    return schedule


def warmup_of(train: TrainSettings, steps: int) -> int:
    """Return the number of warm-up steps; fractions are rounded up, as by transformers."""
    setting = train.warmup_steps
    warmup = math.ceil(steps * setting) if setting < 1 else int(setting)
    if warmup > steps:
        logger.warning(
            "train.warmup_steps: a warm-up of %d steps is longer than the run of %d. It is shortened to the run: the learning "
            "rate rises to its end", warmup, steps,
        )  # fmt: skip
    return min(warmup, steps)


def go_to(schedule: LRScheduler, step: int) -> None:
    """Set a schedule, which is a function of the step, to its value after `step` steps."""
    assert isinstance(schedule, LambdaLR)
    schedule.last_epoch = step
    values = [base * factor(step) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, value in zip(schedule.optimizer.param_groups, values, strict=True):
        group["lr"] = value
    schedule._last_lr = values


def _stepped(step: int, warmup: int, drops: list[int]) -> float:
    """Return the factor of the rate after `step` steps."""
    rise: float = min(1.0, step / warmup) if warmup else 1.0
    return rise * 0.1 ** sum(drop <= step for drop in drops)


@dataclass(frozen=True)
class _Position:
    """The section of a parameter, its layer in the order of the model, and the name of the layer."""

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


def _position(family: Family, name: str) -> _Position:
    part, section = family.part_of(name).name, family.part_of(name).section
    if part.startswith("backbone"):
        stage = re.search(r"stage(\d+)$", part)
        return _Position("backbone", (0, int(stage[1]) if stage else 0), part)
    index = _SECTIONS.index(section)
    layer = re.search(r"\.layers\.(\d+)\.", name)
    if section == "heads":
        return _Position(section, (index, 0), section)
    if part == "decoder" and layer is None:
        return _Position(section, _DECODER_NORM_LAYER, "decoder.norm")
    number = int(layer[1]) if layer else 0  # the inputs of a section are as far from the heads as its first layer
    return _Position(section, (index, number), f"{section}.{number}")


def _distances(model: PreTrainedModel) -> dict[tuple[int, int], int]:
    """Return the number of layers between each layer and the heads, counting frozen ones."""
    heads = (_SECTIONS.index("heads"), 0)
    family = family_of(model)
    layers = {heads, *(_position(family, name).layer for name, _ in model.named_parameters())} - {_DECODER_NORM_LAYER}
    return {_DECODER_NORM_LAYER: 0} | {layer: distance for distance, layer in enumerate(sorted(layers, reverse=True))}


def _without_decay(model: nn.Module) -> set[int]:
    """Return the ids of parameters without weight decay: norms, biases, embeddings.

    As in BEiT and successors of DETR (RT-DETR for norms): decay towards 0 has no meaning for the scale of a norm or the
    embedding of a query.
    """
    modules = [
        module
        for module in model.modules()
        if isinstance(module, nn.Embedding) or "norm" in type(module).__name__.lower()
    ]
    flat = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    own = [parameter for module in modules for parameter in module.parameters(recurse=False)]
    return {id(parameter) for parameter in [*flat, *own]}


def _section_rate(optim: OptimSettings, section: str) -> float | None:
    rate: float | None = getattr(optim, f"{section}_learning_rate")
    return rate


def _is_in(family: Family, name: str, section: str) -> bool:
    """Return whether a parameter is in the section itself, and not in an input of it."""
    part = family.part_of(name)
    return part.section == section and (section == "heads" or part.name.split(".")[0] == section)


def _range(groups: list[dict[str, Any]], key: str) -> str:
    """Return `1e-05`, `1e-06 to 1e-05`, or a dash without trained parameters."""
    values = sorted({group.get(key, group["lr"]) for group in groups})  # `initial_lr` exists with a schedule only
    return " to ".join(f"{value:.3g}" for value in dict.fromkeys([values[0], values[-1]])) if values else "-"
