"""The fast ways are the defaults, and each leaves what is trained as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_config
from support.small_run import make_trainer
from torch import nn
from transformers import DetrForObjectDetection, DetrImageProcessor
from transformers.models.resnet.modeling_resnet import ResNetConvLayer, ResNetShortCut

from detr_ft.data.pipeline.dataset import collate
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.inference import Detector
from detr_ft.models.optimizations import fused_norms
from detr_ft.models.optimizations.fused_norms import FusedConvLayer
from detr_ft.models.optimizations.no_sync import NoSyncEncoderLayer
from detr_ft.training.trainer import DetrTrainer


def kinds(model: nn.Module, kind: type) -> int:
    return sum(isinstance(one, kind) for one in model.modules())


def is_fast(model: nn.Module) -> bool:
    """Every frozen norm is folded, and weights of more than one pixel have their channels side by side."""
    left = [one for one in model.modules() if type(one) in (ResNetConvLayer, ResNetShortCut)]
    wide = [one for one in model.modules() if isinstance(one, nn.Conv2d) and one.kernel_size[0] > 1]
    beside = all(one.weight.is_contiguous(memory_format=torch.channels_last) for one in wide)
    return not left and kinds(model, FusedConvLayer) > 3 and beside


def test_a_trainer_applies_the_optimizations(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run")
    assert is_fast(trainer.model)
    assert kinds(trainer.model, NoSyncEncoderLayer) == trainer.model.config.encoder_layers
    assert trainer.stepper.optimizer.optimizer.defaults["fused"]
    assert len(trainer.stepper.optimizer.param_groups) <= 4
    pixels = next(iter(trainer.loader.steps())).micro_batches[0].inputs["pixel_values"]
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous(memory_format=torch.channels_last)


def test_a_detector_applies_the_optimizations(tiny_checkpoint: Path) -> None:
    assert is_fast(Detector.load(str(tiny_checkpoint)).model)


@pytest.mark.parametrize("ways", [("fused_norms",), ("no_sync",), ("fused_norms", "no_sync")])
def test_a_run_without_optimizations_is_the_same(
    tiny_checkpoint: Path, tmp_path: Path, ways: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = losses(make_trainer(tiny_checkpoint, tmp_path / "fast", logging_steps=1))
    for name in ways:
        monkeypatch.setattr(f"detr_ft.models.optimizations.{name}.apply", lambda model: None)
    slow = make_trainer(tiny_checkpoint, tmp_path / "slow", logging_steps=1)
    assert not is_fast(slow.model) or "fused_norms" not in ways
    assert losses(slow) == pytest.approx(fast, rel=1e-3)


def losses(trainer: DetrTrainer) -> list[float]:
    return [row["loss"] for row in trainer.train().log if "loss" in row]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports
def test_batches_have_few_shapes_if_each_is_compiled(tiny_checkpoint: Path, tmp_path: Path) -> None:
    processor = DetrImageProcessor(size={"shortest_edge": 800, "longest_edge": 1333})
    form = ImageFormat.of(processor)
    trainer = make_trainer(tiny_checkpoint, tmp_path / "plain")
    compiled = make_trainer(tiny_checkpoint, tmp_path / "compiled", torch_compile=True)
    assert trainer.loader.rounding == 1
    assert compiled.loader.rounding == compiled.stepper.format.rounding > 1
    random = torch.Generator().manual_seed(0)
    sizes = [(480 + int(one), 640) for one in torch.randint(-160, 160, (300,), generator=random)]
    shown = [form.resized(width, height) for height, width in sizes]

    def shapes(rounding: int) -> set[tuple[int, ...]]:
        examples = (
            {"pixel_values": torch.zeros(3, height, width, dtype=torch.uint8), "labels": {}} for width, height in shown
        )
        return {tuple(collate([one], None, rounding)["pixel_values"].shape) for one in examples}

    assert len(shapes(1)) > 100
    assert len(shapes(form.rounding)) <= 16


def test_rounded_batches_have_the_same_images() -> None:
    images = [
        torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8),
        torch.randint(0, 256, (3, 61, 40), dtype=torch.uint8),
    ]
    examples: list[dict[str, Any]] = [{"pixel_values": one, "labels": {}} for one in images]
    batch = collate(examples, None, 32)
    assert batch["pixel_values"].shape == (2, 3, 64, 96)
    for image, pixels, mask in zip(images, batch["pixel_values"], batch["pixel_mask"], strict=True):
        _, height, width = image.shape
        assert torch.equal(pixels[:, :height, :width], image)
        assert mask[:height, :width].all()
        assert (int(mask.sum()), int(pixels.sum())) == (height * width, int(image.sum()))


def test_a_convolution_with_a_bias_is_folded() -> None:
    torch.manual_seed(0)
    model = DetrForObjectDetection(tiny_config()).double().eval()
    for layer in [one for one in model.modules() if isinstance(one, nn.Conv2d) and one.bias is None]:
        layer.bias = nn.Parameter(torch.randn(layer.out_channels, dtype=torch.float64))
    pixels = torch.randn(1, 3, 48, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = model(pixel_values=pixels).logits
        assert fused_norms.apply(model) > 3
        torch.testing.assert_close(model(pixel_values=pixels).logits, expected)
