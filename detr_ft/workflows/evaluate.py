"""What the command `evaluate` does: a model, or a file of detections, against a split; figures, and a report if asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from detr_ft.criterion import SetCriterion
from detr_ft.data import class_names
from detr_ft.data.sources.load import category_numbers
from detr_ft.errors import InputError
from detr_ft.evaluation.label_alignment import renamed, same_classes
from detr_ft.inference import Detector
from detr_ft.report.html import RunReport, render_page
from detr_ft.report.markdown import as_markdown
from detr_ft.report.summary import verdict
from detr_ft.run_directory import METRICS, REPORT, REPORT_MARKDOWN
from detr_ft.structures import Detections
from detr_ft.training.launch import join
from detr_ft.training.monitor.evaluator import evaluate_split
from detr_ft.utils.environment import environment
from detr_ft.utils.files import check_new_folder, writing
from detr_ft.utils.progress import console, say
from detr_ft.workflows.evaluation_report import EvaluationReport, collect_report, score, speed_on
from detr_ft.workflows.predictions_file import read_predictions, write_predictions
from detr_ft.workflows.splits import recipe_of, split_of
from detr_ft.workflows.trained_criterion import criterion_of


def evaluate_model(
    model: str,
    split: Dataset,
    source: str,
    batch_size: int,
    out: Path | None = None,
    save: Path | None = None,
    numbers: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """The figures of a model on a split; with `out`, a folder of report and figures; with `save`, a file of its detections, under
    the data's own `numbers` of classes.

    Its classes are those of the data by name, in whatever order. Raises InputError where a class of the data is unknown to it.
    """
    if out is not None:
        check_new_folder(out, "Choose another folder with --out.")
    accelerator = join()
    detector = Detector.load_any(model)
    order = same_classes(detector.names, class_names(split))
    with console.status(f"evaluating {len(split)} images"):
        figures, found = evaluate_split(accelerator, detector.model, detector.processor, split, batch_size)
        if order is not None:
            found = [renamed(one, order) for one in found]
            figures = score_figures(split, found)
    if not accelerator.is_main_process:
        return figures
    if save is not None:
        write_predictions(save, split, found, numbers or {})
        say(f"detections: {save}")
    if out is not None:
        criterion = criterion_of(detector) if order is None else None
        told = _told(detector, split, found, batch_size, criterion)
        write_report(out, told, f"{Path(model).name} on {source}", source, str(criterion or ""))
    return figures


def _told(
    detector: Detector, split: Dataset, found: Sequence[Detections], batch_size: int, criterion: SetCriterion | None
) -> EvaluationReport:
    """All there is to say; of the matching only by a criterion."""
    model, processor, hardware = detector.model, detector.processor, environment()["hardware"]
    if criterion is not None:
        return collect_report(model, processor, criterion, split, found, hardware, batch_size)
    return replace(score(split, found), speed=speed_on(model, processor, split, hardware, batch_size))


def evaluate_predictions(
    file: Path, split: Dataset, source: str, numbers: Mapping[int, str], out: Path | None
) -> dict[str, Any]:
    """The figures of a file in COCO's results format; with `out`, a folder of report and figures."""
    if out is not None:
        check_new_folder(out, "Choose another folder with --out.")
    found = read_predictions(file, split, numbers)
    told = score(split, found)
    if out is not None:
        write_report(out, told, f"{file.name} on {source}", source)
    return told.assessment.figures


def score_figures(split: Dataset, found: Sequence[Detections]) -> dict[str, Any]:
    """The figures of detections."""
    return score(split, found).assessment.figures


def write_report(out: Path, told: EvaluationReport, title: str, where: str, criterion: str = "") -> None:
    """Write `report.html`, `report.md` and `metrics.json` into a new folder, and say where. Raises InputError."""
    about = environment()
    summary = RunReport(
        title=title,
        verdict=verdict(None, told.assessment.figures, where),
        data={
            "data": where,
            "images": f"{told.assessment.marks.num_images:,}",
            "objects": f"{int(told.assessment.marks.counted('all').sum()):,}",
        },
        criterion=criterion,
        environment=about,
        command=" ".join(["detr-ft", *sys.argv[1:]]),
        **told.parts,
    )
    figures = told.assessment.as_json() | {
        "voc": told.voc,
        "matching": told.matching,
        "speed": told.speed and asdict(told.speed),
        "environment": about,
    }
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / METRICS).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        (out / REPORT).write_text(render_page(summary), encoding="utf-8")
        (out / REPORT_MARKDOWN).write_text(as_markdown(told.assessment), encoding="utf-8")
    say(f"report: {out / REPORT}, figures: {out / METRICS}")


def evaluate_by(
    model: str | None,
    data: str | None,
    split: str | None,
    batch_size: int,
    box_format: str | None = None,
    out: Path | None = None,
    save_predictions: Path | None = None,
    from_predictions: Path | None = None,
) -> dict[str, Any]:
    """The COCO figures of a checkpoint, or of a file of detections, by default on what the checkpoint's run held out.

    Boxes are in `box_format`; where it is None, as the run's recipe says of its own data, or as recognised of other data.
    """
    if model is None and (from_predictions is None or data is None):
        raise InputError("give a model to evaluate, or --from-predictions FILE and --data")
    if from_predictions is not None and save_predictions is not None:
        raise InputError("--save-predictions and --from-predictions don't go together: the file is there already")
    chosen = split_of(model or "", data, split, box_format)
    source = data or "held-out images"
    run = None if data else recipe_of(Path(model or ""))
    numbers = category_numbers(data or (run.data.source if run else ""))
    if from_predictions is not None:
        return evaluate_predictions(from_predictions, chosen, source, numbers, out)
    assert model is not None
    return evaluate_model(model, chosen, source, batch_size, out, save_predictions, numbers)
