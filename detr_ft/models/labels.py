"""Fit a model's class head to the classes of the data."""

from __future__ import annotations

import torch
from torch import nn
from transformers import DetrForObjectDetection

_SPREAD = 0.02  # of a new class's weights, in standard deviations of the old ones


def fit_labels(model: DetrForObjectDetection, names: list[str], seed: int = 0) -> list[str]:
    """Give the model the classes `names`, in this order, and answer those whose weights it already had, by name.

    No-object keeps its row, so what the model knows of "there is something here" is kept. A class it does not know starts
    from the mean of the known ones, give or take a little.
    """
    old = {name: index for index, name in model.config.id2label.items()}
    if list(old) == names:
        return names
    head = model.class_labels_classifier
    weight, bias = head.weight.data, head.bias.data
    generator = torch.Generator().manual_seed(seed)
    new = nn.Linear(head.in_features, len(names) + 1).to(weight)
    noise = torch.randn(new.weight.shape, generator=generator).to(weight)
    with torch.no_grad():
        new.weight.copy_(weight[:-1].mean(0) + _SPREAD * weight.std() * noise)
        new.bias.copy_(bias[:-1].mean().expand_as(new.bias))
        for row, name in enumerate(names):
            if name in old:
                new.weight[row] = weight[old[name]]
                new.bias[row] = bias[old[name]]
        new.weight[-1], new.bias[-1] = weight[-1], bias[-1]
    model.class_labels_classifier = new
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    return [name for name in names if name in old]
