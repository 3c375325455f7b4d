"""The whole examination of a data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

import numpy as np
from datasets import DatasetDict

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.doctor.advice import Advice, advise
from detr_ft.data.doctor.checks import (
    box_findings,
    crowded_findings,
    find_duplicates,
    image_findings,
    missing_classes,
    similar_names,
    tiny_findings,
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
from detr_ft.data.sources.errors import Place


@dataclass(frozen=True)
class Diagnosis:
    """What `examine` found; `findings` is empty for clean data.

    `leaked` counts, for each split, its images that are the same as, or look like, one of a split before it.
    `images_per_second` is how fast this machine read and decoded them.
    """

    splits: dict[str, SplitSummary]
    findings: tuple[Finding, ...]
    figures: dict[str, SplitStatistics]
    advice: tuple[Advice, ...]
    leaked: dict[str, int]
    images_per_second: float

    @property
    def errors(self) -> int:
        """How many findings training would refuse, or learn wrongly."""
        return sum(one.level == "error" for one in self.findings)

    def to_json(self) -> str:
        """The whole diagnosis as a JSON text."""
        return json.dumps(asdict(self), indent=2)


def examine(data: DatasetDict, num_queries: int = 100, longest_edge: int | None = None) -> Diagnosis:
    """Decode every image and check every box of every split; nothing is changed.

    `num_queries` is the model's; `longest_edge`, in pixels, what images are resized to: by default what is advised.
    """
    return diagnose(data, scan_dataset(data), num_queries, longest_edge)


def diagnose(
    data: DatasetDict,
    looks: DatasetScan,
    num_queries: int = 100,
    longest_edge: int | None = None,
    faults: Mapping[Place, str] = MappingProxyType({}),
) -> Diagnosis:
    """The diagnosis of a data set whose files were looked at already; `faults` says of objects what class they state."""
    names = class_names(next(iter(data.values())))
    read = {split: boxes_of(rows) for split, rows in data.items()}
    formats = {split: other_format(boxes) for split, boxes in read.items()}
    boxes = {split: converted(one, formats[split]) for split, one in read.items()}
    splits = {split: summarize(rows, boxes[split]) for split, rows in data.items()}
    told = {
        split: split_statistics(boxes[split], np.array(sizes_of(rows), float), names) for split, rows in data.items()
    }
    advice = advise(told)
    edge = longest_edge or next(one.value for one in advice if one.topic == "longest_edge" and one.value)
    images = {
        split: annotated_images(
            sizes_of(rows), boxes[split].by_row(len(rows)), [one.file for one in looks.splits[split]]
        )
        for split, rows in data.items()
    }
    frames = AnnotatedSizes.infer(one for own in images.values() for one in own)
    findings: list[Finding] = []
    for split in data:
        some = looks.splits[split]
        format = formats[split]
        if format is not None:
            findings.append(_other_format(split, read[split], some, format))
        of_images = image_findings(split, some, images[split], frames)
        findings.extend(_merged(of_images, box_findings(split, boxes[split], some, len(names), faults)))
        findings.extend(crowded_findings(split, boxes[split], some, num_queries))
        findings.extend(tiny_findings(split, boxes[split], some, names, edge))
    alike = find_duplicates(looks)
    findings += alike.findings
    findings.extend(unrecorded_files(looks))
    findings.extend(missing_classes(splits))
    findings.extend(similar_names(names, splits))
    return Diagnosis(splits, tuple(findings), told, advice, alike.leaked, round(looks.images_per_second, 1))


def _merged(of_images: Iterator[Finding], of_boxes: list[Finding]) -> list[Finding]:
    """Row by row, an image's own findings before those of its boxes."""
    return sorted([*of_images, *of_boxes], key=lambda one: one.row or 0)


def _other_format(split: str, boxes: BoxColumns, looks: list[ScannedImage], format: BoxFormat) -> Finding:
    first = int(np.flatnonzero(boxes.valid)[0])
    row = int(boxes.row[first])
    numbers = ", ".join(f"{value:g}" for value in boxes.xywh[first])
    message = (
        f"its {len(boxes.row)} boxes are not x, y, width, height in pixels but likely {format}: for example {numbers} "
        "in an image of {:g}x{:g}".format(*boxes.size[first])
    )
    one = looks[row]
    return finding("box format", split, message, image=one.name, image_id=one.image_id, row=row)
