"""The doctor's diagnosis as text for a terminal, and as a self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from PIL import Image

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.data.doctor.diagnosis import Diagnosis
from detr_ft.data.doctor.finding import KINDS, Finding, by_cause, by_kind
from detr_ft.data.doctor.statistics import SplitSummary
from detr_ft.data.images import ImageError, open_image
from detr_ft.data.schema import class_names
from detr_ft.report.page import page_environment
from detr_ft.report.pictures import data_uris
from detr_ft.utils.drawing import draw
from detr_ft.utils.files import check_new_file, writing

_MAX_CLASSES_IN_TEXT = 12
_MAX_FINDINGS_PER_TABLE = 100
_MAX_CAUSES = 12
_MAX_CHARACTERS = 600  # of a location or a message
_MAX_PICTURES_PER_KIND = 12
_MAX_BYTES = 3_000_000
_SIZES = ((400, 80), (300, 75), (220, 65), (160, 55))  # longest side in pixels, JPEG quality
_MAX_BOXES_PER_IMAGE = 100


def describe(diagnosis: Diagnosis) -> str:
    """Return a line for each split, each kind of finding and cause with an example, advice and verdict."""
    lines = [_split_line(name, split) for name, split in diagnosis.splits.items()]
    if diagnosis.unread_objects:
        read = sum(split.boxes for split in diagnosis.splits.values())
        lines.append(
            f"objects: {read + diagnosis.unread_objects} in the files = {read} read + {diagnosis.unread_objects} not read"
        )
    lines.append(f"read and decoded at {diagnosis.images_per_second:.0f} images a second on this machine")
    for kind, findings in by_kind(diagnosis.findings).items():
        lines.extend(_kind_lines(kind, findings))
        if kind == "leakage":
            lines.extend(f"  in all, {line}" for line in _leakage(diagnosis))
    lines.extend(f"advice: {advice}" for advice in diagnosis.advice)
    return "\n".join([*lines, verdict(diagnosis)])


def verdict(diagnosis: Diagnosis) -> str:
    """Return a sentence on whether the data can be used for training."""
    if not diagnosis.findings:
        return "no findings: the data can be trained on"
    levels = [finding.level for finding in diagnosis.findings]
    counts = (
        f"{_plural(levels.count('error'), 'error')}, {_plural(levels.count('warning'), 'warning')} "
        f"and {_plural(levels.count('info'), 'note')}"
    )
    if "error" in levels:
        return f"{counts}: training would refuse this data or learn it wrongly; repair the errors first (exit status 2)"
    return f"{counts}: the data can be trained on"


def write_report(diagnosis: Diagnosis, data: DatasetDict, file: Path) -> None:
    """Write the page to a new file. Raises InputError."""
    check_new_file(file)
    page = render_report(diagnosis, data)
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page, encoding="utf-8")


def render_report(diagnosis: Diagnosis, data: DatasetDict) -> str:
    """Return the page as HTML.

    It loads nothing, is under 5 MB, light and dark, and fits windows from 360 px on.
    """
    kinds = by_kind(diagnosis.findings)
    pictures = _pictures(kinds, data)
    return (
        page_environment()
        .get_template("doctor.html.jinja")
        .render(
            diagnosis=diagnosis,
            verdict=verdict(diagnosis).removesuffix(" (exit status 2)"),
            leakage=list(_leakage(diagnosis)),
            classes=list(next(iter(diagnosis.splits.values())).boxes_per_class),
            max_boxes=max(
                (n for split in diagnosis.figures.values() for n in split.boxes_per_class.values()), default=1
            ),
            kinds=[
                {
                    "name": kind,
                    "kind": KINDS[kind],
                    "count": len(findings),
                    "causes": [_cut(line) for line in _causes(findings)],
                    "rows": [(_cut(one.where), _cut(one.message)) for one in findings[:_MAX_FINDINGS_PER_TABLE]],
                    "pictures": [
                        (_cut(one.where), _cut(one.message), pictures[id(one)])
                        for one in findings[:_MAX_PICTURES_PER_KIND]
                        if id(one) in pictures
                    ],
                }
                for kind, findings in kinds.items()
            ],
        )
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"


def _leakage(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield a line for each split with images that are also in an earlier split."""
    splits = list(diagnosis.splits)
    for split, count in diagnosis.leaked.items():
        if count:
            images = diagnosis.splits[split].images
            earlier = " or ".join(splits[: splits.index(split)])
            yield f"{count} of {images} images of {split} ({count / images:.0%}) are the same as images of {earlier}, or look like them"


def _causes(findings: list[Finding]) -> Iterator[str]:
    """Yield a line for each cause of findings of a kind: their number, and the first as an example."""
    for some in by_cause(findings)[:_MAX_CAUSES]:
        count = f"{len(some)} times, for example " if len(some) > 1 else ""
        yield f"{count}{some[0].where}: {some[0].message}"


def _kind_lines(kind: str, findings: list[Finding]) -> Iterator[str]:
    known = KINDS[kind]
    yield f"{known.level}: {kind}: {len(findings)}. To repair: {known.remedy}"
    yield from (f"  {line}" for line in _causes(findings))
    rest = len(by_cause(findings)) - _MAX_CAUSES
    if rest > 0:
        yield f"  ... and {rest} more causes; --report FILE and --json list them"


def _split_line(name: str, split: SplitSummary) -> str:
    common = sorted(split.boxes_per_class.items(), key=lambda pair: -pair[1])
    classes = ", ".join(f"{label} {count}" for label, count in common[:_MAX_CLASSES_IN_TEXT])
    rest = f" and {len(common) - _MAX_CLASSES_IN_TEXT} more" if len(common) > _MAX_CLASSES_IN_TEXT else ""
    return (
        f"{name}: {split.images} images ({split.images_without_objects} without objects), "
        f"{split.boxes} boxes: {classes}{rest}"
    )


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


def _pictures(findings: Mapping[str, Sequence[Finding]], data: DatasetDict) -> dict[int, str]:
    """Return data URIs for the first findings of each kind whose image opens, by the finding's `id()`."""
    chosen = [one for some in findings.values() for one in some[:_MAX_PICTURES_PER_KIND]]
    chosen = [finding for finding in chosen if _opens(finding, data)]
    uris = data_uris(lambda side: [_picture(finding, data, side) for finding in chosen], _SIZES, _MAX_BYTES)
    return {id(finding): uri for finding, uri in zip(chosen, uris, strict=False)}


def _opens(finding: Finding, data: DatasetDict) -> bool:
    if finding.row is None:
        return False
    try:
        for split, row in filter(None, [(finding.split, finding.row), finding.like]):
            open_image(data[split][row]["image"])
    except ImageError:
        return False
    return True


def _picture(finding: Finding, data: DatasetDict, side: int) -> Image.Image:
    """Draw the image with the box of the finding, with all its boxes, or beside the image that it is like."""
    rows = data[finding.split]
    row = rows[finding.row]
    if finding.like is not None:
        split, other = finding.like
        return _beside([_small(row, side // 2)[0], _small(data[split][other], side // 2)[0]], gap=side // 40)
    image, scale = _small(row, side)
    objects, names = row["objects"], class_names(rows)
    count = min(len(objects["bbox"]), _MAX_BOXES_PER_IMAGE)
    drawn = range(count) if finding.place is None else [finding.place]
    boxes = torch.tensor([objects["bbox"][index] for index in drawn], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([objects["category"][index] for index in drawn], dtype=torch.long)
    valid = boxes.isfinite().all(-1) & (labels >= 0) & (labels < len(names))
    picture = draw(image, xywh_to_xyxy(boxes[valid]) * scale, labels[valid], names)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def _small(row: Mapping[str, Any], side: int) -> tuple[Image.Image, float]:
    """Return the image of a row, no larger than `side`, and its scale."""
    image = open_image(row["image"])
    scale = min(1.0, side / max(image.size))
    if scale == 1:
        return image, scale
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2), scale


def _beside(images: Sequence[Image.Image], gap: int) -> Image.Image:
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    canvas = Image.new("RGB", (width, max(image.height for image in images)), "white")
    left = 0
    for image in images:
        canvas.paste(image, (left, 0))
        left += image.width + gap
    return canvas
