"""Checks of single boxes: their numbers, classes, repetitions, and size after resizing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from detr_ft.data.box_frame import MIN_SIDE_PX
from detr_ft.data.doctor.finding import Finding, finding
from detr_ft.data.doctor.statistics import SLACK_PX, BoxColumns, Mask
from detr_ft.data.integrity.scan import ScannedImage
from detr_ft.data.sources.problems import Problem

# A shorter side of fewer pixels after resizing is tiny.
_TINY_PX = 4.0
_MIN_BOX_SIDE_PX = 1 - 1e-6
_MIN_SHRINK_PX = 32  # an edge rounded down to a multiple of 32 does not count as shrinking


def box_findings(
    split: str,
    boxes: BoxColumns,
    scans: Sequence[ScannedImage],
    num_classes: int,
    unknown: Mapping[tuple[str, int, int], Problem],
) -> list[Finding]:
    """Return every defect of a single box, by image.

    `unknown` are the source's problems of unknown classes, by split, row and place. Of images without a size, only unknown
    classes are reported.
    """
    findings: list[tuple[int, Finding]] = []
    for kind, mask in _box_masks(boxes, num_classes).items():
        for index in np.flatnonzero(mask).tolist():
            text, cause = _box_text(boxes, index), ""
            if kind == "unknown class":
                problem = unknown.get((split, int(boxes.row[index]), int(boxes.position[index])))
                number = f"class index {boxes.label[index]}, but the classes are 0 to {num_classes - 1}"
                text, cause = (number, number) if problem is None else (problem.message, problem.cause)
            elif kind == "outside":
                text += " in an image of {:g}x{:g}".format(*boxes.size[index])
            findings.append((index, _of_box(kind, split, boxes, index, scans, text, cause)))
    for index in _only_unusable(boxes):
        count = int((boxes.row == boxes.row[index]).sum())
        text = f"none of its {count} boxes has an area inside the image"
        findings.append((index, _of_box("no usable box", split, boxes, index, scans, text, text)))
    for index, first in _repeated(boxes):
        text = f"{_box_text(boxes, index)}, the same as annotation {boxes.id[first]}"
        findings.append((index, _of_box("duplicate box", split, boxes, index, scans, text)))
    return [finding for _, finding in sorted(findings, key=lambda pair: pair[0])]


def _box_masks(boxes: BoxColumns, num_classes: int) -> dict[str, Mask]:
    has_size, finite = (boxes.size > 0).all(1), boxes.finite
    xywh = np.where(finite[:, None], boxes.xywh, 0)
    shorter, high = xywh[:, 2:].min(1), xywh[:, :2] + xywh[:, 2:]
    beyond = (xywh[:, :2] < -SLACK_PX).any(1) | (high > boxes.size + SLACK_PX).any(1)
    return {
        "unknown class": ((boxes.label < 0) | (boxes.label >= num_classes)),
        "not finite": has_size & ~finite,
        "negative size": has_size & finite & (shorter < 0),
        "zero size": has_size & finite & (shorter >= 0) & (shorter <= MIN_SIDE_PX),
        "under a pixel": has_size & finite & (shorter > MIN_SIDE_PX) & (shorter < _MIN_BOX_SIDE_PX),
        "outside": has_size & finite & beyond,
    }


def _only_unusable(boxes: BoxColumns) -> list[int]:
    """Return the first box of each image whose boxes are all finite and have no area inside it."""
    xywh = np.where(boxes.finite[:, None], boxes.xywh, 0)
    inside = np.minimum(xywh[:, :2] + xywh[:, 2:], boxes.size) - np.maximum(xywh[:, :2], 0)
    usable = (boxes.size <= 0).any(1) | ~boxes.finite | (inside > MIN_SIDE_PX).all(1)
    rows, first = np.unique(boxes.row, return_index=True)
    usable_rows = np.unique(boxes.row[usable])
    return [int(index) for row, index in zip(rows, first, strict=True) if row not in usable_rows]


def _repeated(boxes: BoxColumns) -> Iterator[tuple[int, int]]:
    """Yield each box that equals an earlier one of its image and class, and the index of that."""
    indices = np.flatnonzero(boxes.finite & (boxes.size > 0).all(1))
    key = np.column_stack([boxes.row[indices], boxes.label[indices], boxes.xywh[indices]])
    _, first, group = np.unique(key, axis=0, return_index=True, return_inverse=True)
    for position, earlier in enumerate(first[group.reshape(-1)]):
        if earlier != position:
            yield int(indices[position]), int(indices[earlier])


def _box_text(boxes: BoxColumns, index: int) -> str:
    return "box x {:g}, y {:g}, width {:g}, height {:g}".format(*boxes.xywh[index])


def _of_box(
    kind: str,
    split: str,
    boxes: BoxColumns,
    index: int,
    scans: Sequence[ScannedImage],
    message: str,
    cause: str = "",
) -> Finding:
    row = int(boxes.row[index])
    return finding(
        kind, split, message, image=scans[row].name, image_id=scans[row].image_id,
        annotation=int(boxes.id[index]), row=row, place=int(boxes.position[index]), cause=cause,
    )  # fmt: skip


def crowded_findings(
    split: str, boxes: BoxColumns, scans: Sequence[ScannedImage], num_queries: int
) -> Iterator[Finding]:
    """Yield the images with more objects, without crowds, than the model has queries."""
    counts = np.bincount(boxes.row[~boxes.crowd], minlength=len(scans))
    for row in np.flatnonzero(counts > num_queries).tolist():
        message = f"{counts[row]} objects, {num_queries} queries"
        scan = scans[row]
        yield finding("more objects than queries", split, message, image=scan.name, image_id=scan.image_id, row=row)


def tiny_findings(
    split: str, boxes: BoxColumns, scans: Sequence[ScannedImage], names: Sequence[str], longest_edge: int
) -> Iterator[Finding]:
    """Yield the smallest box of each class with boxes that are tiny in images of `longest_edge`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        longer = boxes.size.max(1, initial=0)
        shorter: NDArray[np.float64] = boxes.xywh[:, 2:].min(1, initial=np.inf) * (longest_edge / longer)
        tiny = boxes.valid & (longer - longest_edge >= _MIN_SHRINK_PX) & (shorter < _TINY_PX)
    for label, name in enumerate(names):
        of_class = boxes.label == label
        indices = np.flatnonzero(tiny & of_class)
        if len(indices):
            smallest = int(indices[shorter[indices].argmin()])
            message = (
                f"{len(indices)} of {int(of_class.sum())} boxes of {name!r} are under {_TINY_PX:g} pixels at longest_edge "
                f"{longest_edge}; this one is {shorter[smallest]:.1f} pixels thin"
            )
            yield _of_box("tiny after resize", split, boxes, smallest, scans, message)
