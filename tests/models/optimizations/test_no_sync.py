"""A forward pass without synchronization: the same function, and no value is read."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from conftest import tiny_config
from models.families.test_family import table_transformer
from torch import Tensor
from transformers import DetrForObjectDetection

from detr_ft.models.optimizations import no_sync
from detr_ft.models.optimizations.no_sync import NoSyncEncoderLayer


def made(**changes: Any) -> DetrForObjectDetection:
    torch.manual_seed(0)
    config = tiny_config()
    for name, value in changes.items():
        setattr(config, name, value)
    return DetrForObjectDetection(config).double()


def run(model: DetrForObjectDetection, mask: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Logits and boxes of two images with a pixel mask, and the gradients of their sum."""
    torch.manual_seed(1)
    given = model(pixel_values=torch.randn(2, 3, 64, 64, dtype=torch.float64), pixel_mask=mask)
    (given.logits.square().sum() + given.pred_boxes.square().sum()).backward()
    return given.logits, given.pred_boxes, [one.grad for one in model.parameters() if one.grad is not None]


def padded() -> Tensor:
    mask = torch.ones(2, 64, 64, dtype=torch.bool)
    mask[1, 40:] = mask[1, :, 30:] = False
    return mask


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mask", [padded(), torch.ones(2, 64, 64, dtype=torch.bool)], ids=["padded", "whole"])
def test_outputs_and_gradients_stay(mask: Tensor, training: bool) -> None:
    """Dropout included, which is drawn in the same order."""
    model = made(dropout=0.1).train(training)
    steady = copy.deepcopy(model)
    no_sync.apply(steady)
    assert all(isinstance(layer, NoSyncEncoderLayer) for layer in steady.model.encoder.layers)
    expected, actual = run(model, mask), run(steady, mask)
    for one, other in zip([*expected[:2], *expected[2]], [*actual[:2], *actual[2]], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


def test_padding_still_counts() -> None:
    """Pixels under the mask change nothing, which a lost mask would."""
    model = made().eval()
    no_sync.apply(model)
    attended: list[Tensor | None] = []
    model.model.encoder.layers[0].register_forward_pre_hook(lambda _, args: attended.append(args[1]))
    run(model, padded())
    (mask,) = attended
    assert mask is not None
    assert mask.shape[:3] == (2, 1, 1)
    assert not mask[1].all()
    assert mask[0].all()


def test_infinite_values_are_clamped_as_before() -> None:
    """In half precision, where the layer of transformers does so to go on."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        layer = made().model.encoder.layers[0].to(dtype).train()
        layer.final_layer_norm.bias.data[0] = torch.inf
        steady = copy.deepcopy(layer)
        steady.__class__ = NoSyncEncoderLayer
        values = torch.randn(1, 5, layer.hidden_size, dtype=dtype)
        torch.manual_seed(1)
        expected = layer(values, None)
        torch.manual_seed(1)
        actual = steady(values, None)
        assert expected.isfinite().all()
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_attention_that_adds_its_masks_gets_them_so() -> None:
    model = made().eval()
    for part in (model.config, model.model.encoder.config, model.model.decoder.config):
        part._attn_implementation_internal = "eager"
    steady = copy.deepcopy(model)
    no_sync.apply(steady)
    for one, other in zip(run(model, padded())[:2], run(steady, padded())[:2], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


def test_its_code_reads_no_value_of_a_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The truth value of a tensor would synchronize the device."""
    model = made().train()
    no_sync.apply(model)
    run(model, padded())  # fills the caches of positions, and reads the state of autocast once
    monkeypatch.setattr(Tensor, "__bool__", lambda self: pytest.fail("a value was read"))
    monkeypatch.setattr(Tensor, "item", lambda self: pytest.fail("a value was read"))
    run(model, padded())


def test_apply_and_revert() -> None:
    model = made()
    kinds = [type(module) for module in model.modules()]
    no_sync.apply(model)
    assert sum(type(module).__name__.startswith("NoSync") for module in model.modules()) == 3
    no_sync.revert(model)
    assert [type(module) for module in model.modules()] == kinds


def test_another_family_stays() -> None:
    model = table_transformer()
    kinds = [type(module) for module in model.modules()]
    no_sync.apply(model)
    assert [type(module) for module in model.modules()] == kinds
