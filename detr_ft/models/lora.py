"""Low-rank adapters on a transformer that stays as it is (Hu et al., LoRA, ICLR 2022), by peft; merged when a model is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detr_ft.errors import InputError
from detr_ft.models.families.family import Detr
from detr_ft.models.freeze import part_of

# Attention and the feed-forward layers alike: several kinds of matrix at a low rank rather than one at a high (section 7.1).
_INTO = r"model\.(encoder|decoder)\.layers\..*\.(q_proj|k_proj|v_proj|o_proj|out_proj|fc1|fc2)"
_WHOLE = {"class_head", "box_head", "queries"}  # small, and of the task
_BASE, _A, _B = ".base_layer.", ".lora_A.", ".lora_B."


def add_adapters(model: Detr, rank: int, alpha: int, dropout: float = 0.0, freeze: Sequence[str] = ()) -> None:
    """Freeze a model but for its heads and queries, and put adapters of a rank, scaled by `alpha / rank`, into its transformer.

    The model answers as before until they have learned. Parts of `freeze` stay wholly frozen, adapters included. Raises
    InputError without peft.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError("model.lora needs peft: pip install 'detr-ft[lora]'") from error
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=_INTO, bias="none"), model
    )
    for name, parameter in model.named_parameters():
        trains = _A in name or _B in name or part_of(name) in _WHOLE
        parameter.requires_grad_(trains and part_of(name).split(".")[0] not in freeze)


def merged(model: nn.Module) -> dict[str, Tensor]:
    """The weights under the names of a model without adapters, with what those have learned added."""
    held = model.state_dict()
    weights = {name.replace(_BASE, "."): value for name, value in held.items() if _A not in name and _B not in name}
    for place in (name.partition(_A)[0] for name in held if _A in name):
        layer: Any = model.get_submodule(place)
        weights[f"{place}.weight"] = weights[f"{place}.weight"] + layer.get_delta_weight("default").detach()
    return weights


def without_learned(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a model without adapters, under the names of one that has them: those add nothing then."""
    own = model.state_dict()
    based = {name.replace(_BASE, "."): name for name in own if _BASE in name}
    given: dict[str, Any] = {based.get(name, name): value for name, value in weights.items()}
    given |= {name: value for name, value in own.items() if _A in name}
    return given | {name: torch.zeros_like(value) for name, value in own.items() if _B in name}
