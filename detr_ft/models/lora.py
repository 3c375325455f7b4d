"""Low-rank adapters (Hu et al., LoRA, ICLR 2022) by peft, merged when a model is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from detr_ft.models.families import family_of
from detr_ft.utils.environment import import_optional

_TRAINED_PARTS = {"class_head", "box_head", "queries"}  # small, and specific to the task
_BASE, _A, _B = ".base_layer.", ".lora_A.", ".lora_B."


def add_adapters(
    model: PreTrainedModel, rank: int, alpha: int, dropout: float = 0.0, freeze: Sequence[str] = ()
) -> None:
    """Freeze all but heads and queries, and insert adapters into the transformer, in place.

    They are scaled by `alpha / rank`. Before training the outputs stay the same. Parts of `freeze` are frozen entirely,
    adapters included. Raises InputError without peft, and for a family without adapters.
    """
    family = family_of(model)
    family.check_supports("lora")
    (peft,) = import_optional("model.lora", "detr-ft[lora]", "peft")
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=family.lora_layers, bias="none"
    )
    peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        part = family.part_of(name).name
        trains = _A in name or _B in name or part in _TRAINED_PARTS
        parameter.requires_grad_(trains and part.split(".")[0] not in freeze)


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights under the names of a model without adapters, with the adapters added to them."""
    state = model.state_dict()
    weights = {name.replace(_BASE, "."): value for name, value in state.items() if _A not in name and _B not in name}
    for path in (name.partition(_A)[0] for name in state if _A in name):
        layer: Any = model.get_submodule(path)
        weights[f"{path}.weight"] = weights[f"{path}.weight"] + layer.get_delta_weight("default").detach()
    return weights


def weights_with_zero_adapters(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return merged weights under the names of a model with adapters, which then add nothing."""
    own = model.state_dict()
    based = {name.replace(_BASE, "."): name for name in own if _BASE in name}
    state: dict[str, Any] = {based.get(name, name): value for name, value in weights.items()}
    state |= {name: value for name, value in own.items() if _A in name}
    return state | {name: torch.zeros_like(value) for name, value in own.items() if _B in name}
