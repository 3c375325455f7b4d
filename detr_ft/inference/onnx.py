"""Detect with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from detr_ft.errors import InputError
from detr_ft.inference.detector import _Knowing, _several, _upright
from detr_ft.models.export import INPUTS, OUTPUTS, needed
from detr_ft.models.load import load_config_and_processor
from detr_ft.models.predict import detect_by
from detr_ft.structures import Detections


class OnnxModel:
    """An ONNX file on ONNX Runtime and as many threads of the CPU as torch takes, to be asked as a DETR is."""

    def __init__(self, path: Path) -> None:
        (runtime,) = needed("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of many kinds, which have no name of their own
            raise InputError(f"{path}: can't be read by ONNX Runtime: {str(error).partition(chr(10))[0]}") from error
        held = [tuple(one.name for one in ends) for ends in (self._session.get_inputs(), self._session.get_outputs())]
        if [sorted(ends) for ends in held] != [sorted(INPUTS), sorted(OUTPUTS)]:
            raise InputError(f"{path}: no DETR that detr-ft export wrote: it takes {held[0]} and answers {held[1]}")

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        shapes = {one.name: one.shape for one in self._session.get_outputs()}
        return int(shapes[OUTPUTS[0]][-1] or 0) - 1  # written by something else it may not say

    def __call__(self, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, Q, K+1]` and boxes `[B, Q, 4]`, cxcywh in fractions."""
        given = dict(zip(INPUTS, (pixels.numpy(), mask.numpy()), strict=True))
        logits, boxes = self._session.run(list(OUTPUTS), given)
        return torch.from_numpy(logits), torch.from_numpy(boxes)


@dataclass(frozen=True, eq=False, repr=False)
class OnnxDetector(_Knowing):
    """A DETR that `detr-ft export --to onnx` wrote, on ONNX Runtime: `OnnxDetector.load("runs/mine").detect(["photo.jpg"])`."""

    model: OnnxModel
    processor: Any
    _config: Any

    @classmethod
    def load(cls, folder: str, file: str = "onnx/model.onnx") -> OnnxDetector:
        """The file of a folder, `onnx/model_quantized.onnx` being that of eight bits; raises InputError where it can't be read."""
        path = Path(folder) / file
        if not path.is_file():
            raise InputError(
                f"{path}: is not there; detr-ft export MODEL --to onnx --out FOLDER writes it, without --out into the model's own"
            )
        config, processor = load_config_and_processor(folder)
        model = OnnxModel(path)
        if model.classes != config.num_labels:
            raise InputError(
                f"{path}: it tells {model.classes} classes apart, and config.json beside it names {config.num_labels}: export the model again"
            )
        return cls(model, processor, config)

    @property
    def config(self) -> Any:
        """That of the folder."""
        return self._config

    def detect(self, images: Iterable[Image.Image | str | Path], batch_size: int = 8) -> list[Detections]:
        """The detections of each image as `Detector.detect` has them, on the CPU."""
        return detect_by(self.model, self.processor, map(_upright, _several(images)), batch_size)
