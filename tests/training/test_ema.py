from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import DetrForObjectDetection

from detr_ft.errors import InputError
from detr_ft.models.freeze import frozen_norms, live_norms, set_trainable
from detr_ft.training.ema import Ema


def one_weight(value: float, dtype: torch.dtype = torch.float32) -> nn.Linear:
    module = nn.Linear(1, 1, bias=False, dtype=dtype)
    put(module, value)
    return module


@torch.no_grad()
def put(module: nn.Linear, value: float) -> None:
    module.weight.fill_(value)


def bits(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor as bytes: a NaN equals itself, and -0 is not 0."""
    return {
        name: tensor.detach().clone().flatten().contiguous().view(torch.uint8) if tensor.ndim else tensor.clone()
        for name, tensor in model.state_dict().items()
    }


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@torch.no_grad()
def train(model: nn.Module, seed: int) -> None:
    """Stands in for a step: everything that trains moves, and running figures with it."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.add_(1)


@given(st.lists(st.floats(-10, 10), max_size=30), st.floats(0.05, 0.999))
def test_the_average_is_that_computed_by_hand(values: list[float], decay: float) -> None:
    module = one_weight(1.0)
    ema, expected = Ema(module, decay), 1.0
    for step, value in enumerate(values, 1):
        put(module, value)
        ema.update(step)
        weight = min(decay, (1 + step) / (10 + step))
        expected = weight * expected + (1 - weight) * value
    assert ema.state_dict()["weight"].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_start_is_forgotten_soon() -> None:
    module = one_weight(1.0)
    ema = Ema(module, 0.9999)
    put(module, 0.0)
    for step in range(1, 31):
        ema.update(step)
    assert ema.state_dict()["weight"].item() < 1e-6


def test_weights_in_bf16_are_averaged_in_fp32() -> None:
    module = one_weight(1.0, torch.bfloat16)
    ema = Ema(module, 0.999)
    put(module, 2.0)
    for step in range(100_000, 100_010):
        ema.update(step)  # each adds less than half of the spacing of bf16 near 1
    assert ema.state_dict()["weight"].dtype == torch.float32
    assert ema.state_dict()["weight"].item() == pytest.approx(2 - 0.999**10, rel=1e-5)
    with ema.swapped():
        assert module.weight.dtype == torch.bfloat16
        assert module.weight.item() == pytest.approx(1.01, abs=0.004)
    assert module.weight.item() == 2


def averaged(model: DetrForObjectDetection, dtype: torch.dtype = torch.float32) -> Ema:
    """The average of a model with live norms, a frozen part, and two steps behind it."""
    live_norms(model)
    set_trainable(model, ["encoder"])
    model.to(dtype)
    ema = Ema(model, 0.9)
    for step in (1, 2):
        train(model, step)
        ema.update(step)
    return ema


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_model_has_its_own_bits_after_swapping(tiny_model: DetrForObjectDetection, dtype: torch.dtype) -> None:
    ema = averaged(tiny_model, dtype)
    with torch.no_grad():
        tiny_model.class_labels_classifier.bias.copy_(torch.tensor([float("nan"), -0.0, 1e-30, float("inf")]))
    before = bits(tiny_model)
    with ema.swapped():
        for name, average in ema.state_dict().items():
            assert torch.equal(tiny_model.state_dict()[name], average.to(dtype)), name
        assert not same(bits(tiny_model), before)
    assert same(bits(tiny_model), before)


def test_an_interrupted_evaluation_restores_the_bits(tiny_model: DetrForObjectDetection) -> None:
    ema = averaged(tiny_model)
    before = bits(tiny_model)
    with pytest.raises(KeyboardInterrupt), ema.swapped():
        raise KeyboardInterrupt
    assert same(bits(tiny_model), before)


def test_only_trained_tensors_are_averaged(tiny_model: DetrForObjectDetection) -> None:
    ema = averaged(tiny_model)
    names = set(ema.state_dict())
    assert {name for name, one in tiny_model.named_parameters() if one.requires_grad} < names
    assert not any(name.startswith("model.encoder.") for name in names)
    means = [name for name in names if name.endswith("running_mean")]
    assert means
    assert not any(name.endswith("num_batches_tracked") for name in names)
    frozen = {name: value for name, value in bits(tiny_model).items() if name.startswith("model.encoder.")}
    with ema.swapped():
        assert same({name: bits(tiny_model)[name] for name in frozen}, frozen)
        # The mean went 0, 1, 2; the decay is 2/11, then 3/12.
        first = 9 / 11
        assert tiny_model.state_dict()[means[0]][0].item() == pytest.approx(0.25 * first + 0.75 * 2)


def test_norms_frozen_for_saving_have_their_bits_after_swapping(tiny_model: DetrForObjectDetection) -> None:
    ema = averaged(tiny_model)
    before = {name: value for name, value in bits(tiny_model).items() if not name.endswith("num_batches_tracked")}
    with ema.swapped():
        frozen_norms(tiny_model)
    assert same(bits(tiny_model), before)


def test_stock_frozen_norms_are_not_averaged(tiny_model: DetrForObjectDetection) -> None:
    set_trainable(tiny_model, [])
    assert set(Ema(tiny_model, 0.9).state_dict()) == {name for name, _ in tiny_model.named_parameters()}


def test_a_resumed_run_has_the_same_average(tiny_model: DetrForObjectDetection) -> None:
    ema = averaged(tiny_model)
    file = io.BytesIO()
    torch.save(ema.state_dict(), file)
    file.seek(0)
    again = Ema(tiny_model, 0.9)
    again.load_state_dict(torch.load(file, weights_only=True))
    for step in (3, 4):
        train(tiny_model, step)
        ema.update(step)
        again.update(step)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in ema.state_dict().items())


def test_an_average_of_other_weights_is_an_error_and_changes_nothing(tiny_model: DetrForObjectDetection) -> None:
    set_trainable(tiny_model, ["encoder"])
    saved = {name: value + 1 for name, value in Ema(tiny_model, 0.9).state_dict().items()}
    set_trainable(tiny_model, [])
    ema = Ema(tiny_model, 0.9)
    before = {name: value.clone() for name, value in ema.state_dict().items()}
    with pytest.raises(InputError, match=r"16 of its tensors differ, the first is model\.encoder\.layers\.0"):
        ema.load_state_dict(saved)
    assert same(dict(ema.state_dict()), before)
    with pytest.raises(InputError, match="1 of its tensors differ, the first is class_labels_classifier"):
        ema.load_state_dict(before | {"class_labels_classifier.bias": torch.zeros(9)})


def test_a_model_that_is_moved_is_still_averaged(tiny_model: DetrForObjectDetection) -> None:
    live_norms(tiny_model)
    set_trainable(tiny_model, [])
    ema = Ema(tiny_model, 0.9)
    tiny_model.to(torch.float64)  # exchanges its buffers
    train(tiny_model, 1)
    ema.update(1)
    means = [value for name, value in ema.state_dict().items() if name.endswith("running_mean")]
    assert all(mean[0].item() == pytest.approx(9 / 11) for mean in means)
