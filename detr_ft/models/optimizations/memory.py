"""What is traded for memory or speed in a model that trains: activations made again, parts compiled."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from detr_ft.models.families.family import Detr
from detr_ft.training.settings import TrainSettings


def save_memory_or_time(model: Detr, settings: TrainSettings) -> None:
    """Prepare a model as `gradient_checkpointing` and `torch_compile` say."""
    if settings.gradient_checkpointing:
        checkpoint_activations(model)
    if settings.torch_compile:  # without the loss, and part by part: the layers of a kind are then compiled once
        for part in (model.model.backbone, *model.model.encoder.layers, *model.model.decoder.layers):
            part.compile()


def checkpoint_activations(model: Detr) -> None:
    """Let the layers of a model forget their activations and make them again for the backward pass."""
    how = {"use_reentrant": False}  # the other kind wants inputs that require a gradient, and a frozen backbone's don't
    # Newer releases of transformers have another name for it, and warn of the old one.
    renamed: Any = getattr(PreTrainedModel, "activation_checkpointing_enable", None)
    if renamed is None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
    else:
        renamed(model, activation_checkpointing_kwargs=how)
