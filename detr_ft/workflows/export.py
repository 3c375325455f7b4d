"""Export a model for other runtimes, compare them with PyTorch, and time them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from torch.export import save as save_program

from detr_ft.data.images import open_image
from detr_ft.data.schema import class_names
from detr_ft.data.sources.registry import UnlabeledPolicy
from detr_ft.errors import InputError
from detr_ft.evaluation.coco import coco_metrics
from detr_ft.evaluation.detections import align_classes, relabel
from detr_ft.evaluation.metrics import ExportedFile
from detr_ft.hub.secrets import check_secrets
from detr_ft.inference import Detector
from detr_ft.inference.onnx import OnnxModel
from detr_ft.models.benchmark import RUNTIMES, Agreement, compare_runtimes, latencies
from detr_ft.models.export import quantize, trace, write_onnx
from detr_ft.models.families import Family, family_of
from detr_ft.models.load import load_model
from detr_ft.models.predict import Forward, detect_by, forward
from detr_ft.models.save import save_as_stock
from detr_ft.run_directory import EXPORT_METRICS, ONNX, ONNX_8_BITS, TORCH_EXPORT, WRITTEN, RunDirectory
from detr_ft.utils.arguments import model_text
from detr_ft.utils.environment import cpu_description, environment
from detr_ft.utils.files import LOCK, writing
from detr_ft.utils.lock import locked
from detr_ft.utils.progress import status
from detr_ft.utils.threads import use_free_cores
from detr_ft.workflows.results import check_new_folder
from detr_ft.workflows.splits import DataLike, DataOptions, ModelLike, PathLike, run_of, split_of

FORMATS = ("onnx", "int8", "torch")
_FILES = {"onnx": ONNX, "int8": ONNX_8_BITS, "torch": TORCH_EXPORT}
_CHECKED_IMAGES = 50
_MAX_DIFFERENCE = 1e-3  # of a probability or of a box in fractions, between two runtimes of one model


@dataclass(frozen=True)
class ExportOutcome:
    """The files of an export and what was measured, by format; also `export.json`.

    `pytorch` is the original model. `latency` is in milliseconds for one image: median, low and high. `metrics`
    compares eight bits with the original.
    """

    folder: Path
    files: Mapping[str, ExportedFile]
    agreement: Mapping[str, Agreement]
    latency: Mapping[str, Mapping[str, float]]
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the content of `export.json`."""
        content: dict[str, Any] = {
            "hardware": cpu_description(),
            "environment": environment(),
            "files": {kind: asdict(file) for kind, file in self.files.items()},
            "apart": {kind: asdict(agreement) for kind, agreement in self.agreement.items()},
        }
        if self.metrics:
            content["figures"] = self.metrics
        return content | {"latency": self.latency}


def export(
    model: ModelLike,
    to: str | Sequence[str],
    data: DataLike | None = None,
    *,
    split: str | None = None,
    box_format: str | None = None,
    images: PathLike | None = None,
    unlabeled: UnlabeledPolicy | None = None,
    output_dir: PathLike | None = None,
) -> ExportOutcome:
    """Export a model to `onnx`, `int8` (ONNX in eight bits) or `torch` (torch.export), or several of them.

    The files go into the new folder `output_dir`, by default into the model's own. Each is compared with PyTorch on 50
    images of the split before it is written; eight bits may differ, and their cost is measured on the whole split.
    `box_format`, `images` and `unlabeled` are as for `load_data`.
    Raises InputError for a file that differs, for an unknown format, and for a run that is being trained.
    """
    name, formats = model_text(model), _in_order([to] if isinstance(to, str) else to)
    folder = _folder(name, None if output_dir is None else Path(output_dir))
    with locked(run_of(folder)):
        _check_folder(folder, is_new=output_dir is not None)
        rows = split_of(name, data, split, DataOptions(box_format, images, unlabeled))
        use_free_cores()
        return _export(name, formats, folder, rows, is_new=output_dir is not None)


def _export(name: str, formats: Sequence[str], folder: Path, rows: Dataset, *, is_new: bool) -> ExportOutcome:
    original, processor = load_model(name)
    family = family_of(original)
    order = align_classes(Detector(original, processor).names, class_names(rows))
    with ExitStack() as stack:
        draft = Path(stack.enter_context(TemporaryDirectory(dir=folder)))
        with status("tracing the model"):
            program = trace(original)
        runtimes = {"pytorch": partial(forward, original)} | _write(program, formats, draft)
        sample = [open_image(row["image"]) for row in _rows(rows.select(range(min(_CHECKED_IMAGES, len(rows)))))]
        agreement = {
            kind: _agreement(kind, runtimes, family, processor, sample) for kind in runtimes if kind != "pytorch"
        }
        kinds = ("pytorch", "int8") if "int8" in formats else ()
        metrics = {kind: _metrics(runtimes[kind], family, processor, rows, order) for kind in kinds}
        latency = latencies(runtimes, processor, sample[0])
        check_secrets((_FILES[kind], draft / _FILES[kind]) for kind in formats)
        files = {kind: _move(kind, draft, folder) for kind in formats}
    run = RunDirectory(folder)
    if is_new:
        save_as_stock(original, folder)
        processor.save_pretrained(folder)
        run.start_record()
        run.record(file.name for file in folder.iterdir() if file.is_file() and file.name not in (WRITTEN, LOCK))
    run.record(file.path for file in files.values())
    outcome = ExportOutcome(folder, files, agreement, latency, metrics)
    run.write_text(EXPORT_METRICS, json.dumps(outcome.as_json(), indent=2) + "\n")
    return outcome


def _in_order(formats: Sequence[str]) -> list[str]:
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InputError(
            f"to (--to): must be one of {', '.join(FORMATS)}, got {', '.join(map(str, unknown)) or 'none'}"
        )
    return [name for name in FORMATS if name in formats or (name == "onnx" and "int8" in formats)]


def _folder(name: str, out: Path | None) -> Path:
    folder = out or Path(name)
    if out is None and not folder.is_dir():
        raise InputError(
            f"{name} is no folder of this machine. Give a folder to write to with output_dir (--output-dir)"
        )
    return folder


def _check_folder(folder: Path, is_new: bool) -> None:
    """Raise InputError for a folder that can't be written, or for one that should be new and has files."""
    if is_new:
        check_new_folder(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder):
            pass


def _write(program: Any, formats: Sequence[str], draft: Path) -> dict[str, Forward]:
    """Write each format into a folder; return the function that runs it."""
    runtimes: dict[str, Forward] = {}
    full = draft / _FILES["onnx"]
    if "onnx" in formats:
        with status("writing ONNX"):
            write_onnx(program, full)
        runtimes["onnx"] = OnnxModel(full)
    if "int8" in formats:
        quantize(full, draft / _FILES["int8"])
        runtimes["int8"] = OnnxModel(draft / _FILES["int8"])
    if "torch" in formats:
        save_program(program, draft / _FILES["torch"])
        runtimes["torch"] = program.module()
    return runtimes


def _agreement(
    kind: str, runtimes: Mapping[str, Forward], family: Family, processor: Any, sample: Sequence[Image.Image]
) -> Agreement:
    """Compare a format with PyTorch. Raises InputError if it differs, unless it has eight bits."""
    agreement = compare_runtimes(runtimes["pytorch"], runtimes[kind], family, processor, sample)
    equal = agreement.probability <= _MAX_DIFFERENCE and agreement.box <= _MAX_DIFFERENCE  # False for NaN
    if kind != "int8" and not equal:
        raise InputError(
            f"{RUNTIMES[kind]} differs from PyTorch by {agreement.probability:.2g} in a probability and "
            f"{agreement.box:.2g} in a box, on {agreement.images} images, and nothing was written. Install a supported release"
        )
    return agreement


def _move(kind: str, draft: Path, folder: Path) -> ExportedFile:
    target = folder / _FILES[kind]
    target.parent.mkdir(exist_ok=True)
    os.replace(draft / _FILES[kind], target)
    return ExportedFile(_FILES[kind], target.stat().st_size)


@torch.inference_mode()
def _metrics(
    runtime: Forward, family: Family, processor: Any, split: Dataset, order: Sequence[int] | None
) -> dict[str, float | None]:
    with status(f"evaluating {len(split)} images"):
        detections = detect_by(runtime, family, processor, (open_image(row["image"]) for row in _rows(split)))
    if order is not None:
        detections = [relabel(image, order) for image in detections]
    metrics = coco_metrics(split, detections)
    return {name: metrics[name] for name in ("map", "map_50")}


def _rows(split: Dataset) -> Dataset:
    return split.with_format(None).select_columns(["image"])
