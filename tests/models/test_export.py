"""A traced model is the same function, for batches, sizes and masks it was not traced with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from models.families.test_family import table_transformer
from torch import Tensor
from transformers import DetrForObjectDetection

from detr_ft.errors import InputError
from detr_ft.inference.onnx import OnnxModel
from detr_ft.models.export import quantize, trace, write_onnx
from detr_ft.utils.environment import import_optional

Ask = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
# Batches, sizes, and sizes of masks, among them the one that transformers.js always gives.
SHAPES = [(1, (64, 64), (64, 64)), (3, (33, 80), (33, 80)), (2, (100, 72), (64, 64))]


def largest_difference(ask: Ask, model: DetrForObjectDetection) -> float:
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for batch, size, of_mask in SHAPES:
        pixels, mask = torch.randn(batch, 3, *size, generator=generator), torch.ones(batch, *of_mask, dtype=torch.long)
        mask[-1, of_mask[0] // 2 :] = 0
        with torch.no_grad():
            expected = model(pixel_values=pixels, pixel_mask=mask)
            logits, boxes = ask(pixels, mask)
        worst = max(
            worst, float((logits - expected.logits).abs().max()), float((boxes - expected.pred_boxes).abs().max())
        )
    return worst


def test_a_traced_detr_answers_the_same(tiny_model: DetrForObjectDetection) -> None:
    assert largest_difference(trace(tiny_model).module(), tiny_model) < 1e-5


def test_a_traced_table_transformer_answers_the_same() -> None:
    model = table_transformer()
    assert largest_difference(trace(model).module(), model) < 1e-5


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[DetrForObjectDetection, Path]:
    """A model and its ONNX file."""
    torch.manual_seed(0)
    model, path = DetrForObjectDetection(tiny_config()).eval(), tmp_path_factory.mktemp("onnx") / "onnx/model.onnx"
    write_onnx(trace(model), path)
    return model, path


def test_onnx_answers_the_same_and_in_eight_bits_nearly(
    written: tuple[DetrForObjectDetection, Path], tmp_path: Path
) -> None:
    model, path = written
    assert largest_difference(OnnxModel(path), model) < 1e-4
    quantize(path, tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size < path.stat().st_size
    assert 1e-4 < largest_difference(OnnxModel(tmp_path / "int8.onnx"), model) < 0.5


def test_the_inputs_have_the_names_that_other_tools_give(written: tuple[DetrForObjectDetection, Path]) -> None:
    (runtime,) = import_optional("test", "onnxruntime", "onnxruntime")
    session = runtime.InferenceSession(str(written[1]), providers=["CPUExecutionProvider"])
    assert {one.name: (one.type, one.shape) for one in session.get_inputs()} == {
        "pixel_values": ("tensor(float)", ["batch_size", 3, "height", "width"]),
        "pixel_mask": ("tensor(int64)", ["batch_size", "mask_height", "mask_width"]),
    }
    assert {one.name: one.shape for one in session.get_outputs()} == {
        "logits": ["batch_size", 8, 4],
        "pred_boxes": ["batch_size", 8, 4],
    }


def test_missing_packages_are_reported_with_a_remedy(
    tiny_model: DetrForObjectDetection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install 'detr-ft\[export\]'"):
        write_onnx(trace(tiny_model), tmp_path / "model.onnx")
