"""Frozen norms fused into convolutions: the same function, gradients and names."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from models.families.test_family import table_transformer, yolos
from torch import Tensor, nn
from transformers import DetrForObjectDetection

from detr_ft.models.freeze import frozen_norms, live_norms
from detr_ft.models.load import load_model
from detr_ft.models.optimizations import fused_norms
from detr_ft.models.optimizations.fused_norms import FusedConvLayer


@pytest.fixture
def model() -> DetrForObjectDetection:
    """A tiny model in double precision, with norms that do something."""
    torch.manual_seed(0)
    made = DetrForObjectDetection(tiny_config()).requires_grad_(True).double().train()
    for name, buffer in made.named_buffers():
        if "normalization" in name:
            buffer.uniform_(0.5, 1.5)
    return made


def outputs(model: nn.Module) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    given = model(pixel_values=torch.randn(2, 3, 48, 64, dtype=torch.float64))
    model.zero_grad()
    (given.logits.square().sum() + given.pred_boxes.square().sum()).backward()
    return given.logits, given.pred_boxes, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_outputs_and_gradients_are_those_of_the_pair(model: DetrForObjectDetection) -> None:
    folded = copy.deepcopy(model)
    assert fused_norms.apply(folded) > 3
    (logits, boxes, gradients), (logits_, boxes_, gradients_) = outputs(model), outputs(folded)
    torch.testing.assert_close(logits_, logits, rtol=0, atol=1e-11)
    torch.testing.assert_close(boxes_, boxes, rtol=0, atol=1e-12)
    assert gradients.keys() == gradients_.keys()
    assert any("backbone" in name for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_[name], gradient, rtol=1e-9, atol=1e-9, msg=name)


def test_a_fused_model_is_saved_as_stock(model: DetrForObjectDetection, tmp_path: Path) -> None:
    folded = copy.deepcopy(model)
    fused_norms.apply(folded)
    before, after = model.state_dict(), folded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    folded.save_pretrained(tmp_path)
    again = DetrForObjectDetection.from_pretrained(tmp_path).double().train()
    assert not any(isinstance(module, FusedConvLayer) for module in again.modules())
    torch.testing.assert_close(outputs(again)[0], outputs(model)[0], rtol=0, atol=1e-11)


def test_weights_that_are_loaded_later_and_copies_count(model: DetrForObjectDetection) -> None:
    folded = copy.deepcopy(model)
    fused_norms.apply(folded)
    other = copy.deepcopy(folded)
    for values in (other.parameters(), [b for n, b in other.named_buffers() if "normalization" in n]):
        for value in values:
            value.data.mul_(1.1)
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(outputs(other)[0], outputs(model)[0], rtol=0, atol=1e-11)
    assert not torch.allclose(outputs(folded)[0], outputs(model)[0])


def test_bf16_stays_bf16(model: DetrForObjectDetection) -> None:
    """A frozen norm of its own turns activations to fp32 under autocast."""
    kinds = {}
    for folds in (False, True):
        looked = copy.deepcopy(model).float()
        if folds:
            fused_norms.apply(looked)
        layer = looked.model.backbone.model.encoder.stages[0]
        layer.register_forward_hook(lambda _, inputs, given, folds=folds: kinds.update({folds: given.dtype}))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            looked(pixel_values=torch.randn(1, 3, 48, 48))
    assert kinds == {False: torch.float32, True: torch.bfloat16}


def test_norms_that_learn_are_left_alone_and_fold_once_frozen() -> None:
    model, _ = load_model("embedded:small")
    live_norms(model)
    assert fused_norms.apply(model) == 0
    frozen_norms(model)
    assert fused_norms.apply(model) == 15
    assert fused_norms.apply(model) == 0


@pytest.mark.parametrize("build", [lambda: DetrForObjectDetection(tiny_config()), table_transformer])
def test_apply_and_revert(build: Callable[[], nn.Module]) -> None:
    model = build()
    kinds = [type(module) for module in model.modules()]
    assert fused_norms.apply(model) > 3
    assert [type(module) for module in model.modules()] != kinds
    fused_norms.revert(model)
    assert [type(module) for module in model.modules()] == kinds


def test_a_family_without_a_resnet_stays() -> None:
    assert fused_norms.apply(yolos()) == 0
