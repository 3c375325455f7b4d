"""Activation checkpointing and compilation of a model's parts."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from detr_ft.models.families import family_of


def apply(model: PreTrainedModel, gradient_checkpointing: bool, compile: bool) -> None:
    """Prepare a model for less memory or more speed, in place.

    With `gradient_checkpointing` layers recompute their activations in the backward pass; with `compile` backbone and layers
    are compiled. Raises InputError for a family without activation checkpointing.
    """
    if gradient_checkpointing:
        family_of(model).check_supports("gradient_checkpointing")
        # The reentrant kind needs inputs that require a gradient, and those of a frozen backbone do not.
        options = {"use_reentrant": False}
        # Renamed in newer releases of transformers, which warn about the old name.
        renamed: Any = getattr(PreTrainedModel, "activation_checkpointing_enable", None)
        if renamed is None:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        else:
            renamed(model, activation_checkpointing_kwargs=options)
    if compile:  # without the loss, and by parts: equal layers are then compiled once
        for part in family_of(model).compiled_parts(model):
            part.compile()


def revert(model: PreTrainedModel) -> None:
    """Store activations and run the parts of the model uncompiled again, in place."""
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        renamed: Any = getattr(model, "activation_checkpointing_disable", None)
        (renamed or model.gradient_checkpointing_disable)()
    for part in family_of(model).compiled_parts(model):
        part._compiled_call_impl = None  # torch has no public way to undo nn.Module.compile
