"""The doctor's diagnosis as text for a terminal, and as a self-contained HTML file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from datasets import Dataset, DatasetDict
from PIL import Image

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.data.doctor.diagnosis import Diagnosis
from detr_ft.data.doctor.finding import Finding, by_cause, by_kind
from detr_ft.data.doctor.kinds import KINDS
from detr_ft.data.doctor.statistics import SplitSummary
from detr_ft.data.images import ImageError, open_image
from detr_ft.data.schema import class_names
from detr_ft.data.sources.problems import ProblemKind
from detr_ft.report.page import page_environment
from detr_ft.report.pictures import data_uris
from detr_ft.utils.drawing import draw
from detr_ft.utils.files import check_new_file, writing
from detr_ft.utils.formatting import percent

_MAX_CLASSES_IN_TEXT = 12
_MAX_FINDINGS_PER_TABLE = 100
_MAX_CAUSES = 12
_MAX_CHARACTERS = 600  # of a location or a message
_MAX_PICTURES_PER_KIND = 12
_MAX_BYTES, _MAX_SAMPLE_BYTES = 2_400_000, 900_000
_MAX_SAMPLES_PER_SPLIT = 6
_SIZES = ((400, 80), (300, 75), (220, 65), (160, 55))  # longest side in pixels, JPEG quality
_MAX_BOXES_PER_IMAGE = 100
_MAX_ENLARGEMENT = 4.0
_THUMBNAIL_PX = 240  # width of a picture on the page


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
        lines.extend(_relative(line, diagnosis.roots) for line in _kind_lines(kind, findings))
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

    def text(line: str) -> str:
        return _cut(_relative(line, diagnosis.roots))

    return (
        page_environment()
        .get_template("doctor.html.jinja")
        .render(
            diagnosis=diagnosis,
            verdict=verdict(diagnosis).removesuffix(" (exit status 2)"),
            leakage=list(_leakage(diagnosis)),
            samples=_samples(data),
            classes=list(next(iter(diagnosis.splits.values())).boxes_per_class),
            max_boxes=max(
                (n for split in diagnosis.figures.values() for n in split.boxes_per_class.values()), default=1
            ),
            kinds=[
                {
                    "name": kind,
                    "kind": KINDS[kind],
                    "count": len(findings),
                    "causes": [text(line) for line in _causes(findings)],
                    "rows": [(text(one.where), text(one.message)) for one in findings[:_MAX_FINDINGS_PER_TABLE]],
                    "pictures": [
                        (text(one.where), text(_reason(one)), pictures[id(one)])
                        for one in findings[:_MAX_PICTURES_PER_KIND]
                        if id(one) in pictures
                    ],
                }
                for kind, findings in kinds.items()
            ],
        )
    )


def _reason(finding: Finding) -> str:
    """Return the message without the place in the annotation file, for captions."""
    is_of_file = finding.kind in get_args(ProblemKind)
    return (finding.message.partition(": ")[2] or finding.message) if is_of_file else finding.message


def _relative(line: str, roots: Sequence[str]) -> str:
    """Return a line with paths below the data's folder relative to it."""
    for root in roots:
        if root not in ("", ".", "/"):
            line = line.replace(f"{root}/", "")
    return line


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"


def _leakage(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield a line for each split with images that are also in an earlier split."""
    splits = list(diagnosis.splits)
    for split, count in diagnosis.leaked.items():
        if count:
            images = diagnosis.splits[split].images
            earlier = " or ".join(splits[: splits.index(split)])
            yield f"{count} of {images} images of {split} ({percent(count / images)}) are the same as images of {earlier}, or look like them"


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


def _plural(count: int, word: str, plural: str = "") -> str:
    return f"{count} {word if count == 1 else plural or word + 's'}"


def _pictures(findings: Mapping[str, Sequence[Finding]], data: DatasetDict) -> dict[int, str]:
    """Return data URIs for the first findings of each kind whose image opens, by the finding's `id()`."""
    chosen = [one for some in findings.values() for one in some[:_MAX_PICTURES_PER_KIND]]
    chosen = [finding for finding in chosen if _opens(finding, data)]
    uris = data_uris(lambda side: [_picture(finding, data, side) for finding in chosen], _SIZES, _MAX_BYTES)
    return {id(finding): uri for finding, uri in zip(chosen, uris, strict=False)}


def _opens(finding: Finding, data: DatasetDict) -> bool:
    if finding.row is None:
        return False
    return all(
        _opens_row(data[split], row) for split, row in filter(None, [(finding.split, finding.row), finding.like])
    )


def _picture(finding: Finding, data: DatasetDict, side: int) -> Image.Image:
    """Draw the image with the box of the finding, with all its boxes, or beside the image that it is like."""
    rows = data[finding.split]
    row = rows[finding.row]
    if finding.like is not None:
        split, other = finding.like
        return _beside([_fitted(row, side // 2)[0], _fitted(data[split][other], side // 2)[0]], gap=side // 40)
    image, scale = _fitted(row, side)
    objects, names = row["objects"], class_names(rows)
    count = min(len(objects["bbox"]), _MAX_BOXES_PER_IMAGE)
    drawn = range(count) if finding.place is None else [finding.place]
    return _with_boxes(image, scale, objects, drawn, names, side)


def _with_boxes(
    image: Image.Image,
    scale: float,
    objects: Mapping[str, Any],
    indices: Sequence[int],
    names: Sequence[str],
    side: int,
) -> Image.Image:
    """Return an image with some of its objects, also those of unknown classes."""
    boxes = torch.tensor([objects["bbox"][index] for index in indices], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([objects["category"][index] for index in indices], dtype=torch.long)
    labels[(labels < 0) | (labels >= len(names))] = len(names)
    finite = boxes.isfinite().all(-1)
    picture = draw(
        image, xywh_to_xyxy(boxes[finite]) * scale, labels[finite], [*names, "unknown class"], None, _THUMBNAIL_PX
    )
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def _samples(data: DatasetDict) -> dict[str, list[tuple[str, str]]]:
    """Return ordinary images of each split with their boxes: caption and data URI, rare classes first."""
    chosen = [(split, row) for split, rows in data.items() for row in _sample_rows(rows) if _opens_row(rows, row)]

    def pictures(side: int) -> list[Image.Image]:
        return [_sample(data[split], row, side) for split, row in chosen]

    samples: dict[str, list[tuple[str, str]]] = {split: [] for split in data}
    for (split, row), uri in zip(chosen, data_uris(pictures, _SIZES, _MAX_SAMPLE_BYTES), strict=False):
        path = data[split][row]["image"]["path"] or f"image {data[split][row]['image_id']}"
        count = _plural(len(data[split][row]["objects"]["bbox"]), "box", "boxes")
        samples[split].append((f"{count}, {Path(path).name}", uri))
    return samples


def _sample_rows(rows: Dataset) -> list[int]:
    """Return rows with every class, the rarest first, then others, in the order of the split."""
    objects = rows.with_format(None).select_columns(["objects"])
    classes = [set(row["objects"]["category"]) for row in objects]
    counts = Counter(label for of_row in classes for label in of_row)
    chosen: dict[int, None] = {}
    for label, _ in sorted(counts.items(), key=lambda pair: (pair[1], pair[0])):
        if len(chosen) < _MAX_SAMPLES_PER_SPLIT and not any(label in classes[row] for row in chosen):
            chosen[next(row for row, of_row in enumerate(classes) if label in of_row)] = None
    step = max(1, len(rows) // _MAX_SAMPLES_PER_SPLIT)
    for row in range(0, len(rows), step):
        chosen.setdefault(row, None)
    return list(chosen)[:_MAX_SAMPLES_PER_SPLIT]


def _opens_row(rows: Dataset, row: int) -> bool:
    try:
        open_image(rows[row]["image"])
    except ImageError:
        return False
    return True


def _sample(rows: Dataset, row: int, side: int) -> Image.Image:
    image, scale = _fitted(rows[row], side)
    objects = rows[row]["objects"]
    indices = range(min(len(objects["bbox"]), _MAX_BOXES_PER_IMAGE))
    return _with_boxes(image, scale, objects, indices, class_names(rows), side)


def _fitted(row: Mapping[str, Any], side: int) -> tuple[Image.Image, float]:
    """Return the image of a row with a longest side of `side`, and its scale.

    A small image is enlarged, so that the names on it can be read.
    """
    image = open_image(row["image"])
    scale = min(_MAX_ENLARGEMENT, side / max(image.size))
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
