"""A DETR as a graph that needs none of its code: by torch.export, in ONNX, and in ONNX with weights of eight bits."""

from __future__ import annotations

import logging
import warnings
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from detr_ft.errors import InputError
from detr_ft.models.families.family import Detr
from detr_ft.models.optimizations.fused_norms import fold_norms

_OPSET = 23  # the first with an operator for attention
INPUTS, OUTPUTS = ("pixel_values", "pixel_mask"), ("logits", "pred_boxes")
# Says of every export without torchvision that its operators are left out.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


class _Answers(nn.Module):
    """A DETR that takes and gives tensors alone."""

    def __init__(self, model: Detr) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.model(pixel_values=pixel_values, pixel_mask=pixel_mask)
        return outputs.logits, outputs.pred_boxes


def trace(model: Detr) -> ExportedProgram:
    """The model for any number and size of images: pixels `[B, 3, H, W]` and a mask to logits `[B, Q, K+1]` and boxes.

    The mask may have another size than the pixels: transformers.js always gives one of 64 by 64. Frozen norms are folded into
    the convolutions, in place.
    """
    fold_norms(model.eval())
    anything, batch = Dim.DYNAMIC, Dim("batch_size")
    example = torch.zeros(2, 3, 96, 128), torch.ones(2, 64, 72, dtype=torch.long)
    shapes = {"pixel_values": {0: batch, 2: anything, 3: anything}, "pixel_mask": {0: batch, 1: anything, 2: anything}}
    with torch.no_grad():
        return torch.export.export(_Answers(model).eval(), example, dynamic_shapes=shapes)


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Write a traced model as ONNX, under the names of inputs and outputs that Optimum and transformers.js look for."""
    needed("onnx", "onnxscript")
    names = {
        "pixel_values": {0: "batch_size", 2: "height", 3: "width"},
        "pixel_mask": {1: "mask_height", 2: "mask_width"},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about itself
        written = torch.onnx.export(
            program, (), dynamo=True, opset_version=_OPSET, dynamic_shapes=names, verbose=False,
            input_names=INPUTS, output_names=OUTPUTS,
        )  # fmt: skip
    assert written is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    written.save(path, external_data=False)


def quantise(full: Path, path: Path) -> None:
    """Write an ONNX model with the weights of its matrix products in eight bits, activations being scaled as they come.

    The convolutions of the backbone stay as they are. What it saves and costs is measured by `export`.
    """
    shapes, tools = needed("onnx", "onnxruntime.quantization.shape_inference", "onnxruntime.quantization")[1:]
    with TemporaryDirectory() as folder:
        shaped = Path(folder) / "shaped.onnx"
        shapes.quant_pre_process(full, shaped, skip_symbolic_shape=True)
        products = ["MatMul", "Gemm"]
        tools.quantize_dynamic(
            shaped, path, per_channel=True, weight_type=tools.QuantType.QInt8, op_types_to_quantize=products
        )


def needed(*modules: str) -> list[Any]:
    """Modules that only an export needs. Raises InputError where one is missing, saying how to get it."""
    try:
        return [import_module(module) for module in modules]
    except ImportError as error:
        raise InputError(f"an export to ONNX needs {' and '.join(modules)}: pip install 'detr-ft[export]'") from error
