"""Activation checkpointing and compilation by plain values, and back."""

from __future__ import annotations

import copy

import pytest
import torch
from models.families.test_family import table_transformer, yolos
from models.test_attach import batch
from torch import nn
from transformers import DetrForObjectDetection, PreTrainedModel

from detr_ft.errors import InputError
from detr_ft.models.optimizations import memory


def compiled(model: PreTrainedModel) -> list[str]:
    return [name for name, module in model.named_modules() if module._compiled_call_impl is not None]


def recomputes(model: PreTrainedModel) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_activations_are_recomputed_until_reverted(tiny_model: DetrForObjectDetection) -> None:
    assert not recomputes(tiny_model)
    memory.apply(tiny_model, gradient_checkpointing=True, compile=False)
    assert recomputes(tiny_model)
    assert not compiled(tiny_model)
    memory.revert(tiny_model)
    assert not recomputes(tiny_model)


def test_parts_are_compiled_until_reverted(tiny_model: DetrForObjectDetection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda call, *args, **kwargs: call)  # compiling takes minutes
    memory.apply(tiny_model, gradient_checkpointing=False, compile=True)
    layers = [f"model.encoder.layers.{index}" for index in range(tiny_model.config.encoder_layers)]
    layers += [f"model.decoder.layers.{index}" for index in range(tiny_model.config.decoder_layers)]
    assert sorted(compiled(tiny_model)) == sorted(["model.backbone", *layers])
    assert not recomputes(tiny_model)
    memory.revert(tiny_model)
    assert not compiled(tiny_model)


def test_a_family_without_checkpointing_is_refused() -> None:
    with pytest.raises(InputError, match="Table Transformer does not support gradient_checkpointing"):
        memory.apply(table_transformer(), gradient_checkpointing=True, compile=False)


def test_gradients_stay_with_recomputed_activations() -> None:
    model = yolos()
    other = copy.deepcopy(model)
    memory.apply(other, gradient_checkpointing=True, compile=False)
    for one in (model.train(), other.train()):
        for module in one.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0
        one(**batch()).loss.backward()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        if mine.grad is not None:
            torch.testing.assert_close(theirs.grad, mine.grad, rtol=1e-4, atol=1e-6)
