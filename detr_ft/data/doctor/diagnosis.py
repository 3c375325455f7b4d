"""The diagnosis of a data set: all findings, statistics and advice."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from datasets import DatasetDict

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.doctor.advice import Advice, advise
from detr_ft.data.doctor.box_checks import box_findings, crowded_findings, tiny_findings
from detr_ft.data.doctor.box_patterns import pattern_findings
from detr_ft.data.doctor.checks import (
    copies_without_boxes,
    file_findings,
    find_duplicates,
    image_findings,
    missing_classes,
    similar_names,
    thin_findings,
    unrecorded_files,
)
from detr_ft.data.doctor.finding import Finding, finding
from detr_ft.data.doctor.statistics import (
    BoxColumns,
    SplitStatistics,
    SplitSummary,
    boxes_of,
    converted,
    other_format,
    split_statistics,
    summarize,
)
from detr_ft.data.integrity.annotated_size import AnnotatedSizes, annotated_images
from detr_ft.data.integrity.scan import DatasetScan, ScannedImage, scan_dataset
from detr_ft.data.schema import class_names, sizes_of
from detr_ft.data.sources.problems import Problem, num_unread


@dataclass(frozen=True)
class Diagnosis:
    """The result of `examine`; `findings` is empty for clean data.

    `figures` are the statistics of each split. `leaked` counts, for each split, the images that are the same as, or look
    like, an image of an earlier split. `images_per_second` is the speed of reading and decoding. `unread_objects` counts the
    objects of the files that are in no split. `roots` are the paths of the data, which texts for people leave out.
    """

    splits: dict[str, SplitSummary]
    findings: tuple[Finding, ...]
    figures: dict[str, SplitStatistics]
    advice: tuple[Advice, ...]
    leaked: dict[str, int]
    images_per_second: float
    unread_objects: int = 0
    roots: tuple[str, ...] = ()

    @property
    def errors(self) -> int:
        """The number of findings that training would refuse, or learn wrongly."""
        return sum(finding.level == "error" for finding in self.findings)

    def to_json(self) -> str:
        """Return the diagnosis as JSON."""
        return json.dumps(asdict(self), indent=2)


def examine(data: DatasetDict, num_queries: int = 100, longest_edge: int | None = None) -> Diagnosis:
    """Decode every image and check every box of every split, without changing them.

    `num_queries` is the model's. `longest_edge` is that of resized images, in pixels; the default is the advised one.
    """
    return diagnose(data, scan_dataset(data), num_queries, longest_edge)


def diagnose(
    data: DatasetDict,
    scan: DatasetScan,
    num_queries: int = 100,
    longest_edge: int | None = None,
    problems: Sequence[Problem] = (),
    roots: Sequence[str] = (),
    annotated: Collection[Path] = (),
) -> Diagnosis:
    """Return the diagnosis of a scanned data set; `problems` are those of its files at `roots`.

    `annotated` are the image files with annotations that are in no split.
    """
    unknown = {
        (problem.split, problem.row, problem.place): problem
        for problem in problems
        if problem.split is not None and problem.row is not None and problem.place is not None
    }
    names = class_names(next(iter(data.values())))
    stated = {split: boxes_of(rows) for split, rows in data.items()}
    formats = {split: other_format(boxes) for split, boxes in stated.items()}
    boxes = {split: converted(columns, formats[split]) for split, columns in stated.items()}
    splits = {split: summarize(rows, boxes[split]) for split, rows in data.items()}
    statistics = {
        split: split_statistics(boxes[split], np.array(sizes_of(rows), float), names) for split, rows in data.items()
    }
    advice = advise(statistics)
    edge = longest_edge or next(item.value for item in advice if item.topic == "longest_edge" and item.value)
    images = {
        split: annotated_images(
            sizes_of(rows), boxes[split].by_row(len(rows)), [image.file for image in scan.splits[split]]
        )
        for split, rows in data.items()
    }
    sizes = AnnotatedSizes.infer(image for rows in images.values() for image in rows)
    findings: list[Finding] = list(file_findings(problems, scan))
    if "train" not in data:
        findings.append(finding("no train split", next(iter(data)), f"there is only {' and '.join(data)}"))
    for split, format in formats.items():
        scans = scan.splits[split]
        if format is not None:
            findings.append(_format_finding(split, stated[split], scans, format))
        of_images = image_findings(split, scans, images[split], sizes)
        findings.extend(_by_row(of_images, box_findings(split, boxes[split], scans, len(names), unknown)))
        findings.extend(crowded_findings(split, boxes[split], scans, num_queries))
        findings.extend(tiny_findings(split, boxes[split], scans, names, edge))
        findings.extend(thin_findings(split, scans, edge))
        findings.extend(pattern_findings(split, boxes[split], scans, names))
    duplicates = find_duplicates(scan)
    findings += duplicates.findings
    findings.extend(copies_without_boxes(scan, boxes, names, duplicates.groups))
    findings.extend(unrecorded_files(scan, annotated))
    findings.extend(missing_classes(splits))
    findings.extend(similar_names(names, splits))
    speed = round(scan.images_per_second, 1)
    return Diagnosis(
        splits, tuple(findings), statistics, advice, duplicates.leaked, speed, num_unread(problems), tuple(roots)
    )


def _by_row(of_images: Iterator[Finding], of_boxes: list[Finding]) -> list[Finding]:
    """Return the findings row by row, those of an image before those of its boxes."""
    return sorted([*of_images, *of_boxes], key=lambda finding: finding.row or 0)


def _format_finding(split: str, boxes: BoxColumns, scans: list[ScannedImage], format: BoxFormat) -> Finding:
    first = int(np.flatnonzero(boxes.valid)[0])
    row = int(boxes.row[first])
    numbers = ", ".join(f"{value:g}" for value in boxes.xywh[first])
    message = (
        f"its {len(boxes.row)} boxes are not x, y, width, height in pixels but likely {format}: for example {numbers} "
        "in an image of {:g}x{:g}".format(*boxes.size[first])
    )
    image = scans[row]
    return finding("box format", split, message, image=image.name, image_id=image.image_id, row=row)
