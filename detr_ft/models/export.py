"""Export a DETR as a graph without its code: by torch.export, in ONNX, and in ONNX with 8-bit weights."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from transformers import PreTrainedModel

from detr_ft.models.families import family_of
from detr_ft.models.optimizations import fused_norms
from detr_ft.utils.environment import import_optional

_OPSET = 23  # the first with an attention operator
INPUTS, OUTPUTS = ("pixel_values", "pixel_mask"), ("logits", "pred_boxes")
EXTRA = "detr-ft[export]"
# Warns at every export without torchvision that its operators are left out.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


class _TensorsOnly(nn.Module):
    """A model with tensors as inputs and outputs."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.model(pixel_values=pixel_values, pixel_mask=pixel_mask)
        return outputs.logits, outputs.pred_boxes


def trace(model: PreTrainedModel) -> ExportedProgram:
    """Trace a model for any number and size of images.

    Pixels `[B, 3, H, W]` and a mask to logits `[B, Q, C]` and boxes `[B, Q, 4]`. The size of the mask may differ from
    that of the pixels: transformers.js always passes 64 by 64. Frozen norms are fused into the convolutions, in place.
    Raises InputError for a family that cannot be exported.
    """
    family_of(model).check_supports("export")
    fused_norms.apply(model.eval())
    dynamic, batch = Dim.DYNAMIC, Dim("batch_size")
    example = torch.zeros(2, 3, 96, 128), torch.ones(2, 64, 72, dtype=torch.long)
    shapes = {
        "pixel_values": {0: batch, 2: dynamic, 3: dynamic},
        "pixel_mask": {0: batch, 1: dynamic, 2: dynamic},
    }
    with torch.no_grad():
        return torch.export.export(_TensorsOnly(model).eval(), example, dynamic_shapes=shapes, strict=False)


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Write a traced model as ONNX, with the names that Optimum and transformers.js expect."""
    import_optional("export to ONNX", EXTRA, "onnx", "onnxscript")
    names = {
        "pixel_values": {0: "batch_size", 2: "height", 3: "width"},
        "pixel_mask": {1: "mask_height", 2: "mask_width"},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about its own code
        written = torch.onnx.export(
            program, (), dynamo=True, opset_version=_OPSET, dynamic_shapes=names, verbose=False,
            input_names=INPUTS, output_names=OUTPUTS,
        )  # fmt: skip
    assert written is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    written.save(path, external_data=False)


def quantize(full: Path, path: Path) -> None:
    """Write an ONNX model with 8-bit weights in its matrix products; activations are scaled at run time.

    The convolutions of the backbone stay as they are.
    """
    _, shapes, tools = import_optional(
        "export to ONNX", EXTRA, "onnx", "onnxruntime.quantization.shape_inference", "onnxruntime.quantization"
    )
    with TemporaryDirectory() as folder:
        shaped = Path(folder) / "shaped.onnx"
        shapes.quant_pre_process(full, shaped, skip_symbolic_shape=True)
        products = ["MatMul", "Gemm"]
        tools.quantize_dynamic(
            shaped, path, per_channel=True, weight_type=tools.QuantType.QInt8, op_types_to_quantize=products
        )
