"""Collect the results of a model on a split; write `report.html` and `metrics.json`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset

from detr_ft.criterion import SetCriterion
from detr_ft.data.images import open_image
from detr_ft.evaluation.assessment import assess
from detr_ft.evaluation.coco import match_split
from detr_ft.evaluation.metrics import EvaluationMetrics
from detr_ft.evaluation.query_statistics import MatchingStatistics
from detr_ft.evaluation.voc import voc_metrics
from detr_ft.models.benchmark import measure
from detr_ft.models.predict import predict_split_raw
from detr_ft.report.content import EvaluationReport, RunReport
from detr_ft.report.page import render_page
from detr_ft.report.pictures import select_photos
from detr_ft.run_directory import METRICS, REPORT, RunDirectory
from detr_ft.structures import Detections
from detr_ft.utils import files

_MATCHING_IMAGES = 500
_QUERY_MAPS = 18


def score(
    split: Dataset, detections: Sequence[Detections], trained_on: Mapping[str, int] | None = None
) -> EvaluationReport:
    """Assess detections of any origin.

    `trained_on` is the number of boxes of each class in the training data.
    """
    assessment = assess(match_split(split, detections), trained_on)
    return EvaluationReport(
        assessment, select_photos(split, detections, assessment), voc=voc_metrics(split, detections)
    )


def collect_report(
    model: Any,
    processor: Any,
    criterion: SetCriterion | None,
    split: Dataset,
    detections: Sequence[Detections],
    hardware: str,
    batch_size: int,
    trained_on: Mapping[str, int] | None = None,
) -> EvaluationReport:
    """Assess the detections of a model, time it, and collect its matching if there is a criterion."""
    report = score(split, detections, trained_on)
    if criterion is not None:
        statistics = MatchingStatistics(criterion.matcher)
        sample = split.select(range(min(_MATCHING_IMAGES, len(split))))
        for predictions, targets in predict_split_raw(model, processor, criterion, sample, batch_size):
            statistics.add(predictions, targets)
        report = replace(report, matching=statistics.summary(), queries=statistics.most_used(_QUERY_MAPS))
    images = [open_image(row["image"]) for row in islice(split, batch_size)]
    return replace(report, speed=measure(model, processor, images, batch_size, hardware))


def write_report(folder: RunDirectory, page: RunReport) -> None:
    """Write `report.html`. Raises InputError."""
    folder.write_text(REPORT, render_page(page))


def write_metrics(folder: RunDirectory, metrics: EvaluationMetrics) -> None:
    """Write `metrics.json`, the sign that all other results are complete. Raises InputError."""
    folder.write_text(METRICS, metrics.to_json())


def check_new_folder(folder: Path) -> None:
    """Raise InputError for a folder that is not empty."""
    files.check_new_folder(folder, "Choose another folder with output_dir (--output-dir).")


def command_line() -> str:
    """Return the command of this process for a report."""
    return " ".join(["detr-ft", *sys.argv[1:]])
