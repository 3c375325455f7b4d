"""Detect objects with ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from detr_ft.errors import InputError
from detr_ft.inference.detector import DetectorBase
from detr_ft.models.export import EXTRA, INPUTS, OUTPUTS
from detr_ft.models.families import family_of
from detr_ft.models.load import load_config_and_processor
from detr_ft.models.predict import detect_by
from detr_ft.run_directory import ONNX
from detr_ft.structures import Detections
from detr_ft.utils.arguments import path_text
from detr_ft.utils.environment import import_optional


class OnnxModel:
    """An ONNX file on ONNX Runtime, on the CPU with as many threads as torch uses; called as a `Forward`.

    Raises InputError for a file that cannot be read or has other inputs and outputs.
    """

    def __init__(self, path: Path) -> None:
        (runtime,) = import_optional("ONNX Runtime", EXTRA, "onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of several types without a common base
            message = str(error).partition("\n")[0]
            raise InputError(f"{path}: cannot be read by ONNX Runtime: {message}. Export the model again.") from error
        inputs, outputs = (
            [end.name for end in ends] for ends in (self._session.get_inputs(), self._session.get_outputs())
        )
        if sorted(inputs) != sorted(INPUTS) or sorted(outputs) != sorted(OUTPUTS):
            raise InputError(
                f"{path}: must have the inputs {list(INPUTS)} and outputs {list(OUTPUTS)}, got {inputs} and {outputs}. "
                "Export the model with detr-ft export."
            )

    @property
    def num_columns(self) -> int:
        """The number C of logits per query; 0 if the file does not state it."""
        shapes = {output.name: output.shape for output in self._session.get_outputs()}
        return int(shapes[OUTPUTS[0]][-1] or 0)

    def __call__(self, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits `[B, Q, C]` and boxes `[B, Q, 4]`, cxcywh in fractions."""
        inputs = dict(zip(INPUTS, (pixels.numpy(), mask.numpy()), strict=True))
        logits, boxes = self._session.run(list(OUTPUTS), inputs)
        return torch.from_numpy(logits), torch.from_numpy(boxes)


def _no_onnx_file(folder: Path, path: Path) -> str:
    """Return the message for a missing file, with the folder of the model if one inside it was given."""
    models = [folder] if folder.suffix == ".onnx" else sorted(folder.glob("*.onnx"))
    for model in models:
        for parent in list(model.absolute().parents)[:2]:
            if (parent / "config.json").is_file():
                given = os.path.relpath(parent) if not folder.is_absolute() else parent
                inside = model.absolute().relative_to(parent).as_posix()
                return f"{folder}: must be the folder of the model and its config.json. Load {given}, file {inside}"
    return f"{path}: no such file. Run: detr-ft export {folder} --to onnx"


@dataclass(frozen=True, eq=False, repr=False)
class OnnxDetector(DetectorBase):
    """A model exported to ONNX, on ONNX Runtime: `OnnxDetector.load("runs/mine")("photo.jpg")`."""

    model: OnnxModel
    processor: Any
    _config: Any

    @classmethod
    def load(cls, folder: str | os.PathLike[str], file: str | os.PathLike[str] = ONNX) -> OnnxDetector:
        """Load the file of a folder; `onnx/model_quantized.onnx` has 8-bit weights. Raises InputError."""
        folder = path_text("folder", folder)
        path = Path(folder) / path_text("file", file)
        if not path.is_file():
            raise InputError(_no_onnx_file(Path(folder), path))
        config, processor = load_config_and_processor(folder)
        model = OnnxModel(path)
        classes = model.num_columns - (family_of(config).activation == "softmax")  # without no-object
        if classes != config.num_labels:
            raise InputError(
                f"{path}: has {classes} classes, and config.json beside it has {config.num_labels}. Export the model again."
            )
        return cls(model, processor, config)

    @property
    def config(self) -> Any:
        """The config in the folder."""
        return self._config

    def _run(self, images: Iterator[Image.Image], batch_size: int) -> list[Detections]:
        return detect_by(self.model, family_of(self.config), self.processor, images, batch_size)
