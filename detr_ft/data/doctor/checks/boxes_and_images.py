"""What is wrong with the boxes of a split, and with its images' files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detr_ft.data.box_frame import LEAST_SIDE
from detr_ft.data.doctor.box_columns import SLACK, Boxes, Mask
from detr_ft.data.doctor.finding import Finding, finding
from detr_ft.data.doctor.scan import Looks
from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.data.integrity.annotated_size import TURNED, AnnotatedImage, AnnotatedSizes, Rescaling, why_unclear
from detr_ft.data.integrity.scan import ScannedImage
from detr_ft.data.sources.errors import Place

# A shorter side of fewer pixels after resizing is tiny.
TINY = 4.0
_TURNED_ASIDE = 5  # from this EXIF orientation on width and height change places; 2 to 4 leave the size as it is
_MIRRORED = "mirrored or turned upside down, as EXIF says"
_ROUNDING = 32  # pixels by which an edge is below an image's for being a multiple of 32: no shrinking to speak of


def image_findings(
    split: str, looks: Sequence[ScannedImage], images: Sequence[AnnotatedImage], frames: AnnotatedSizes
) -> Iterator[Finding]:
    """Images that don't open, that are turned, and that aren't as annotated."""
    for row, (one, image, fit) in enumerate(zip(looks, images, map(frames.fit, images), strict=True)):
        troubles = (
            [(one.trouble, one.message, None)] if one.trouble else _image_troubles(image, fit, frames.show_turning)
        )
        for kind, message, sort in troubles:
            yield finding(kind, split, message, image=one.name, image_id=one.image_id, row=row, sort=sort)


def _image_troubles(image: AnnotatedImage, fit: Rescaling | None, told: bool) -> Iterator[tuple[str, str, str | None]]:
    """Kind, message and sort; `told`: images beside this one tell whether boxes were drawn on what EXIF turns."""
    (width, height), turned = image.file.upright, image.file.orientation
    moved = fit is not None and fit.how == TURNED
    if turned > 1:
        text = "EXIF orientation {} turns or mirrors {}x{} as stored".format(turned, *image.file.stored)
        if moved:
            yield "exif rotation", f"{text}; its boxes seem to be drawn on the image as stored", None
        elif turned < _TURNED_ASIDE and image.boxes and fit is not None and not told:
            yield "exif mirroring", f"{text}; nothing tells whether its boxes were drawn before or after that", None
        else:
            yield "exif rotation", text, None
    if fit is None:
        yield "unclear size", why_unclear(image), None
    elif fit.how:
        sort = _MIRRORED if moved and turned < _TURNED_ASIDE else fit.how
        size = f"is {width}x{height}" + (" when upright" if turned > 1 else "")
        yield "wrong size", "stated {}x{}, ".format(*image.stated) + f"{size}; boxes: {sort}", sort


def box_findings(
    split: str, boxes: Boxes, looks: Sequence[ScannedImage], num_classes: int, faults: Mapping[Place, str]
) -> list[Finding]:
    """Every defect of a single box, image by image; `faults` are what the source says of unknown classes.

    Of an image without a size nothing is said but these.
    """
    found: list[tuple[int, Finding]] = []
    for kind, mask in _box_masks(boxes, num_classes).items():
        for index in np.flatnonzero(mask).tolist():
            text = _box_text(boxes, index)
            if kind == "unknown class":
                number = f"class index {boxes.label[index]}, but the classes are 0 to {num_classes - 1}"
                text = faults.get((split, int(boxes.row[index]), int(boxes.place[index])), number)
            elif kind == "outside":
                text += " in an image of {:g}x{:g}".format(*boxes.size[index])
            found.append((index, _of_box(kind, split, boxes, index, looks, text)))
    for index, first in _twice(boxes):
        text = f"{_box_text(boxes, index)}, the same as annotation {boxes.id[first]}"
        found.append((index, _of_box("duplicate box", split, boxes, index, looks, text)))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def _box_masks(boxes: Boxes, num_classes: int) -> dict[str, Mask]:
    known, finite = (boxes.size > 0).all(1), boxes.finite
    xywh = np.where(finite[:, None], boxes.xywh, 0)
    least, high = xywh[:, 2:].min(1), xywh[:, :2] + xywh[:, 2:]
    beyond = (xywh[:, :2] < -SLACK).any(1) | (high > boxes.size + SLACK).any(1)
    return {
        "unknown class": ((boxes.label < 0) | (boxes.label >= num_classes)),
        "not finite": known & ~finite,
        "negative size": known & finite & (least < 0),
        "zero size": known & finite & (least >= 0) & (least <= LEAST_SIDE),
        "outside": known & finite & beyond,
    }


def _twice(boxes: Boxes) -> Iterator[tuple[int, int]]:
    """Each box that an earlier one of its image equals, class included, and that earlier one."""
    some = np.flatnonzero(boxes.finite & (boxes.size > 0).all(1))
    key = np.column_stack([boxes.row[some], boxes.label[some], boxes.xywh[some]])
    _, first, group = np.unique(key, axis=0, return_index=True, return_inverse=True)
    for place, earlier in enumerate(first[group.reshape(-1)]):
        if earlier != place:
            yield int(some[place]), int(some[earlier])


def _box_text(boxes: Boxes, index: int) -> str:
    return "box x {:g}, y {:g}, width {:g}, height {:g}".format(*boxes.xywh[index])


def _of_box(kind: str, split: str, boxes: Boxes, index: int, looks: Sequence[ScannedImage], message: str) -> Finding:
    row = int(boxes.row[index])
    return finding(
        kind, split, message, image=looks[row].name, image_id=looks[row].image_id,
        annotation=int(boxes.id[index]), row=row, place=int(boxes.place[index]),
    )  # fmt: skip


def crowded_findings(split: str, boxes: Boxes, looks: Sequence[ScannedImage], num_queries: int) -> Iterator[Finding]:
    """Images with more objects, crowds aside, than the model has queries."""
    counts = np.bincount(boxes.row[~boxes.crowd], minlength=len(looks))
    for row in np.flatnonzero(counts > num_queries).tolist():
        message = f"{counts[row]} objects, {num_queries} queries"
        one = looks[row]
        yield finding("more objects than queries", split, message, image=one.name, image_id=one.image_id, row=row)


def tiny_findings(
    split: str, boxes: Boxes, looks: Sequence[ScannedImage], names: Sequence[str], longest_edge: int
) -> Iterator[Finding]:
    """One finding a class whose boxes are tiny once images are shrunk to `longest_edge`; it names the tiniest."""
    with np.errstate(divide="ignore", invalid="ignore"):
        own = boxes.size.max(1, initial=0)
        shorter: NDArray[np.float64] = boxes.xywh[:, 2:].min(1, initial=np.inf) * (longest_edge / own)
        tiny = boxes.sound & (own - longest_edge >= _ROUNDING) & (shorter < TINY)
    for label, name in enumerate(names):
        of_class = boxes.label == label
        some = np.flatnonzero(tiny & of_class)
        if len(some):
            tiniest = int(some[shorter[some].argmin()])
            message = (
                f"{len(some)} of {int(of_class.sum())} boxes of {name!r} are under {TINY:g} pixels at longest_edge "
                f"{longest_edge}; this one is {shorter[tiniest]:.1f} pixels thin"
            )
            yield _of_box("tiny after resize", split, boxes, tiniest, looks, message)


def unrecorded_files(looks: Looks) -> Iterator[Finding]:
    """Image files that lie in the same folders as the data set's images, and that no split names."""
    folders: dict[Path, str] = {}
    named: set[Path] = set()
    for split, some in looks.splits.items():
        for path in (Path(one.path) for one in some if one.path is not None):
            named.add(path)
            folders.setdefault(path.parent, split)
    for folder, split in folders.items():
        there = sorted(folder.iterdir()) if folder.is_dir() else []
        for path in there:
            if path.suffix.lower() in IMAGE_SUFFIXES and path not in named and not path.name.startswith("."):
                yield finding("no record", split, "no record of the annotations names this file", image=str(path))
