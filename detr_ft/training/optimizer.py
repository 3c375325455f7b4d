"""The optimizer: AdamW in four groups, the backbone at its own rate, no decay on norms and biases."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import AdamW

from detr_ft.models.freeze import part_of
from detr_ft.training.settings import OptimSettings, TrainSettings


def build_optimizer(model: nn.Module, train: TrainSettings, optim: OptimSettings) -> AdamW:
    """AdamW over the parameters that train (Carion et al., ECCV 2020, section 4: the backbone learns at a lower rate)."""
    rates = {True: optim.backbone_learning_rate or train.learning_rate, False: train.learning_rate}
    groups: list[dict[str, Any]] = []
    for backbone, rate in rates.items():
        for decayed, decay in ((True, train.weight_decay), (False, 0.0)):
            parameters = [
                parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
                and part_of(name).startswith("backbone") == backbone
                and (parameter.ndim > 1) == decayed
            ]
            if parameters:
                groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    return AdamW(groups, fused=torch.cuda.is_available())
