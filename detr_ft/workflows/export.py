"""What the command `export` does: write a model for other runtimes, hold it against PyTorch's answers, and time both."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from torch.export import save as save_program

from detr_ft.data import class_names
from detr_ft.data.images import open_image
from detr_ft.errors import InputError
from detr_ft.evaluation.coco import coco_metrics
from detr_ft.evaluation.label_alignment import renamed, same_classes
from detr_ft.inference import Detector
from detr_ft.inference.onnx import OnnxModel
from detr_ft.models.export import quantise, trace, write_onnx
from detr_ft.models.load import load_model
from detr_ft.models.predict import Ask, ask, detect_by
from detr_ft.models.runtime_agreement import RUNTIMES, compare, latencies
from detr_ft.models.save import save_as_stock
from detr_ft.run_directory import EXPORT_METRICS
from detr_ft.utils.environment import cpu_in_words, environment
from detr_ft.utils.files import check_new_folder, writing
from detr_ft.utils.progress import console, say
from detr_ft.workflows.splits import split_of

FORMATS = ("onnx", "int8", "torch")
_FILES = {"onnx": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx", "torch": "model.pt2"}
_CHECKED = 50  # images
_APART = 1e-3  # that probabilities and boxes (in fractions) of one model may lie on two runtimes


def export_model(
    name: str, formats: Sequence[str], data: str | None, split: str | None, box_format: str | None, out: Path | None
) -> dict[str, Any]:
    """Write a model into its own folder, or another, in some of `FORMATS`; returns what was measured, kept in `export.json`.

    Every file is held against PyTorch on 50 images first, and one that answers otherwise is not kept; in eight bits it may,
    and what that costs is measured on the whole split. Raises InputError for that, and for a format that is none.
    """
    wanted = _in_order(formats)
    folder = _folder(name, out)
    images = split_of(name, data, split, box_format)
    if not len(images):
        raise InputError(
            "there is no image to check the export on: name a split that has some with --split, or other --data"
        )
    model, processor = load_model(name)
    order = same_classes(Detector(model, processor).names, class_names(images))
    told: dict[str, Any] = {"hardware": cpu_in_words(), "environment": environment(), "files": {}, "apart": {}}
    with ExitStack() as stack:
        draft = Path(stack.enter_context(TemporaryDirectory(dir=folder)))
        with console.status("tracing the model"):
            program = trace(model)
        asks = {"pytorch": partial(ask, model)} | _written(program, wanted, draft)
        some = [open_image(row["image"]) for row in _rows(images.select(range(min(_CHECKED, len(images)))))]
        for kind in asks.keys() - {"pytorch"}:
            apart = compare(asks["pytorch"], asks[kind], processor, some)
            if kind != "int8" and not (apart.probability <= _APART and apart.box <= _APART):  # NaN is neither
                raise InputError(
                    f"{RUNTIMES[kind]} answers otherwise than PyTorch: by {apart.probability:.2g} in a probability and "
                    f"{apart.box:.2g} in a box, on {apart.images} images. Nothing was written; is its release supported?"
                )
            told["apart"][kind] = vars(apart)
        if "int8" in wanted:
            told["figures"] = {kind: _figures(asks[kind], processor, images, order) for kind in ("pytorch", "int8")}
        told["latency"] = latencies(asks, processor, some[0])
        for kind in wanted:
            (folder / _FILES[kind]).parent.mkdir(exist_ok=True)
            os.replace(draft / _FILES[kind], folder / _FILES[kind])
            told["files"][kind] = {"path": _FILES[kind], "bytes": (folder / _FILES[kind]).stat().st_size}
    if not (folder / "config.json").is_file():
        save_as_stock(model, folder)
        processor.save_pretrained(folder)
    (folder / EXPORT_METRICS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return told


def table_of(told: Mapping[str, Any]) -> str:
    """What an export wrote and measured, as plain text."""
    base = told["latency"]["pytorch"]["median"]
    lines = [f"{'':<22} {'MiB':>6} {'ms an image':>12} {'against PyTorch':>16} {'apart':>9} {'mAP':>7}"]
    for kind, spent in told["latency"].items():
        size = f"{told['files'][kind]['bytes'] / 2**20:.1f}" if kind in told["files"] else ""
        apart = told["apart"].get(kind)
        far = f"{max(apart['probability'], apart['box']):.1e}" if apart else ""
        value = told.get("figures", {}).get(kind)
        figure = f"{value['map']:.4f}" if value and value["map"] is not None else ""
        lines.append(
            f"{RUNTIMES[kind]:<22} {size:>6} {spent['median']:>12.1f} {spent['median'] / base:>15.2f}x {far:>9} {figure:>7}"
        )
    return "\n".join(lines)


def _in_order(formats: Sequence[str]) -> list[str]:
    unknown = [one for one in formats if one not in FORMATS]
    if unknown or not formats:
        raise InputError(f"--to {', '.join(unknown)}: there are {', '.join(FORMATS)}")
    return [one for one in FORMATS if one in formats or (one == "onnx" and "int8" in formats)]


def _folder(name: str, out: Path | None) -> Path:
    folder = out or Path(name)
    if out is None and not folder.is_dir():
        raise InputError(f"{name} is no folder of this machine: say where to write with --out")
    if out is not None:
        check_new_folder(out, "Choose another folder with --out.")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder):
            pass
    return folder


def _written(program: Any, wanted: Sequence[str], draft: Path) -> dict[str, Ask]:
    """Each format in a folder, and how to ask it."""
    asks: dict[str, Ask] = {}
    full = draft / _FILES["onnx"]
    if "onnx" in wanted:
        with console.status("writing ONNX"):
            write_onnx(program, full)
        asks["onnx"] = OnnxModel(full)
    if "int8" in wanted:
        quantise(full, draft / _FILES["int8"])
        asks["int8"] = OnnxModel(draft / _FILES["int8"])
    if "torch" in wanted:
        save_program(program, draft / _FILES["torch"])
        asks["torch"] = program.module()
    return asks


@torch.inference_mode()
def _figures(ask: Ask, processor: Any, split: Dataset, order: Any) -> dict[str, float | None]:
    with console.status(f"evaluating {len(split)} images"):
        found = detect_by(ask, processor, (open_image(row["image"]) for row in _rows(split)))
    if order is not None:
        found = [renamed(one, order) for one in found]
    figures = coco_metrics(split, found)
    return {name: figures[name] for name in ("map", "map_50")}


def _rows(split: Dataset) -> Dataset:
    return split.with_format(None).select_columns(["image"])


def say_export(told: Mapping[str, Any]) -> None:
    """Tell what was written where, and what it costs."""
    say(table_of(told))
    images = max(apart["images"] for apart in told["apart"].values())
    say(
        f"apart: the largest difference of a probability or a box's side (in fractions of the image), on {images} images"
    )
    if "figures" in told:
        full, small = (told["figures"][kind]["map"] for kind in ("pytorch", "int8"))
        cost = "can't be told: these images hold no objects" if full is None else f"{full - small:.4f}"
        say(f"what eight bits cost of mAP: {cost}")
    say("written: " + ", ".join(one["path"] for one in told["files"].values()))
