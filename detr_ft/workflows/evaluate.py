"""Evaluate a model, or a file of detections, on a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from datasets import Dataset

from detr_ft.data.schema import class_names
from detr_ft.data.sources.registry import UnlabeledPolicy
from detr_ft.errors import InputError
from detr_ft.evaluation.coco import coco_metrics
from detr_ft.evaluation.detections import align_classes, relabel
from detr_ft.evaluation.metrics import EvaluationMetrics
from detr_ft.inference import Detector
from detr_ft.report.content import EvaluationReport, RunReport
from detr_ft.report.headline import headline
from detr_ft.report.page import render_markdown
from detr_ft.run_directory import METRICS, REPORT, REPORT_MARKDOWN, RunDirectory
from detr_ft.structures import Detections
from detr_ft.training.launch import exclusive, join, on_main_process
from detr_ft.training.monitor.evaluator import detect_together
from detr_ft.utils.arguments import check_whole_number, model_text
from detr_ft.utils.environment import environment
from detr_ft.utils.progress import status
from detr_ft.utils.threads import use_free_cores
from detr_ft.workflows.predictions_file import read_predictions, write_predictions
from detr_ft.workflows.results import (
    check_new_folder,
    collect_report,
    command_line,
    score,
    write_metrics,
    write_report,
)
from detr_ft.workflows.splits import (
    DataLike,
    DataOptions,
    GivenData,
    ModelLike,
    PathLike,
    category_ids,
    choose_split,
    read_data,
    recipe_of,
    split_of,
)
from detr_ft.workflows.trained_criterion import criterion_of


@dataclass(frozen=True)
class EvaluateOutcome:
    """The metrics and detections of a model on a split, and the folder of the report, if any.

    Without a report, `metrics` are COCO's only.
    """

    metrics: EvaluationMetrics
    detections: tuple[Detections, ...]
    output_dir: Path | None = None

    @property
    def report(self) -> Path | None:
        """The HTML page."""
        return self.output_dir and self.output_dir / REPORT


def evaluate(
    model: ModelLike | None = None,
    data: DataLike | None = None,
    *,
    split: str | None = None,
    output_dir: PathLike | None = None,
    save_predictions: PathLike | None = None,
    from_predictions: PathLike | None = None,
    batch_size: int = 8,
    box_format: str | None = None,
    images: PathLike | None = None,
    unlabeled: UnlabeledPolicy | None = None,
) -> EvaluateOutcome:
    """Evaluate a model, or a file of detections, by default on its run's validation images.

    `split` is train, validation or test, by default the first of validation, test and train that the data have.
    `output_dir` is a new folder for `report.html`, `report.md` and, written last, `metrics.json`. `save_predictions` is a
    file for the detections in COCO's results format; `from_predictions` is one to evaluate instead of a model, or a COCO file with
    scores. Its images are matched by `file_name`, else by `image_id`. Classes are compared by name.
    `box_format`, `images` and `unlabeled` are as for `load_data`. Raises InputError, also for data with a class that the
    model doesn't know.
    """
    if model is None and (from_predictions is None or data is None):
        raise InputError("give a model to evaluate, or from_predictions (--from-predictions) and data (--data)")
    if from_predictions is not None and save_predictions is not None:
        raise InputError(
            "save_predictions (--save-predictions) would copy the file of from_predictions (--from-predictions). Give one of them"
        )
    if model is not None and from_predictions is not None and data is not None:
        raise InputError(
            "model would have no effect: from_predictions (--from-predictions) is evaluated on data (--data). Leave it out"
        )
    check_whole_number("batch_size", batch_size, 1)
    name = "" if model is None else model_text(model)
    options = DataOptions(box_format, images, unlabeled)
    given = None if data is None else read_data(data, options)
    source, numbers = _source_of(name, given)
    rows = split_of(name, None, split, options) if given is None else choose_split(given.splits, split)
    folder = None if output_dir is None else Path(output_dir)
    save = None if save_predictions is None else Path(save_predictions)
    with ExitStack() as stack:
        if folder is not None:
            join()
            stack.enter_context(exclusive(folder))
            on_main_process(partial(_check_output, folder))
        if from_predictions is not None:
            return _evaluate_file(Path(from_predictions), rows, source, numbers, folder)
        return _evaluate_model(name, rows, source, numbers, batch_size, folder, save)


def _check_output(folder: Path) -> None:
    """Raise InputError for a folder that is not empty."""
    if (folder / REPORT).is_file() and not (folder / METRICS).is_file():
        raise InputError(
            f"{folder} has a {REPORT} and no {METRICS}: an evaluation was interrupted while it wrote them. Remove the folder, "
            "or choose another one with output_dir (--output-dir)"
        )
    check_new_folder(folder)


def _source_of(model: str, given: GivenData | None) -> tuple[str, Mapping[int, str]]:
    """Return a name for the data in reports, and the class of each category id of a COCO data set."""
    if given is None:
        recipe = recipe_of(Path(model))
        return "held-out images", {} if recipe is None else category_ids(recipe.data.source)
    return given.source, given.category_ids or category_ids(given.source)


def _evaluate_model(
    model: str,
    split: Dataset,
    source: str,
    numbers: Mapping[int, str],
    batch_size: int,
    folder: Path | None,
    save: Path | None,
) -> EvaluateOutcome:
    accelerator = join()
    use_free_cores()
    detector = Detector.load_any(model)
    order = align_classes(detector.names, class_names(split))
    criterion = criterion_of(detector) if folder is not None and order is None else None
    with status(f"evaluating {len(split)} images"):
        detections = detect_together(accelerator, detector.model, detector.processor, split, batch_size)
        if order is not None:
            detections = [relabel(image, order) for image in detections]
        metrics = EvaluationMetrics.of_coco(coco_metrics(split, detections))
    if accelerator.is_main_process and save is not None:
        write_predictions(save, split, detections, numbers)
    if accelerator.is_main_process and folder is not None:
        report = collect_report(
            detector.model, detector.processor, criterion, split, detections, environment()["hardware"], batch_size
        )
        metrics = _write(folder, report, f"{Path(model).name} on {source}", source, str(criterion or ""))
    return EvaluateOutcome(metrics, _named(detections, split), folder)


def _evaluate_file(
    file: Path, split: Dataset, source: str, numbers: Mapping[int, str], folder: Path | None
) -> EvaluateOutcome:
    detections = read_predictions(file, split, numbers)
    if folder is None:
        metrics = EvaluationMetrics.of_coco(coco_metrics(split, detections))
    else:
        metrics = _write(folder, score(split, detections), f"{file.name} on {source}", source)
    return EvaluateOutcome(metrics, _named(detections, split), folder)


def _named(detections: Sequence[Detections], split: Dataset) -> tuple[Detections, ...]:
    names = class_names(split)
    return tuple(replace(image, names=names) for image in detections)


def _write(folder: Path, report: EvaluationReport, title: str, source: str, criterion: str = "") -> EvaluationMetrics:
    matches, about = report.assessment.matches, environment()
    page = RunReport(
        title=title,
        verdict=headline(report.metrics, source),
        evaluation=report,
        data={
            "data": source,
            "images": f"{matches.num_images:,}",
            "objects": f"{int(matches.counted('all').sum()):,}",
        },
        criterion=criterion,
        environment=about,
        command=command_line(),
    )
    metrics, target = replace(report.metrics, environment=about), RunDirectory(folder)
    write_report(target, page)
    target.write_text(REPORT_MARKDOWN, f"## Evaluation\n\n{render_markdown(metrics)}")
    write_metrics(target, metrics)
    return metrics
