"""Checks of a data set: its images, boxes, classes and duplicates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detr_ft.data.box_frame import MIN_SIDE_PX
from detr_ft.data.doctor.finding import Finding, finding
from detr_ft.data.doctor.statistics import SLACK_PX, BoxColumns, Mask, SplitSummary
from detr_ft.data.duplicates import MAX_DISTANCE, nearest, similar_groups
from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.data.integrity.annotated_size import TURNED, AnnotatedImage, AnnotatedSizes, Rescaling, unclear_reason
from detr_ft.data.integrity.scan import DatasetScan, ScannedImage
from detr_ft.data.sources.errors import Place

# A shorter side of fewer pixels after resizing is tiny.
TINY_PX = 4.0
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
        yield "unclear size", unclear_reason(image), None
    elif fit.how:
        sort = _MIRRORED if moved and turned < _TURNED_ASIDE else fit.how
        size = f"is {width}x{height}" + (" when upright" if turned > 1 else "")
        yield "wrong size", "stated {}x{}, ".format(*image.stated) + f"{size}; boxes: {sort}", sort


def box_findings(
    split: str, boxes: BoxColumns, looks: Sequence[ScannedImage], num_classes: int, faults: Mapping[Place, str]
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


def _box_masks(boxes: BoxColumns, num_classes: int) -> dict[str, Mask]:
    known, finite = (boxes.size > 0).all(1), boxes.finite
    xywh = np.where(finite[:, None], boxes.xywh, 0)
    least, high = xywh[:, 2:].min(1), xywh[:, :2] + xywh[:, 2:]
    beyond = (xywh[:, :2] < -SLACK_PX).any(1) | (high > boxes.size + SLACK_PX).any(1)
    return {
        "unknown class": ((boxes.label < 0) | (boxes.label >= num_classes)),
        "not finite": known & ~finite,
        "negative size": known & finite & (least < 0),
        "zero size": known & finite & (least >= 0) & (least <= MIN_SIDE_PX),
        "outside": known & finite & beyond,
    }


def _twice(boxes: BoxColumns) -> Iterator[tuple[int, int]]:
    """Each box that an earlier one of its image equals, class included, and that earlier one."""
    some = np.flatnonzero(boxes.finite & (boxes.size > 0).all(1))
    key = np.column_stack([boxes.row[some], boxes.label[some], boxes.xywh[some]])
    _, first, group = np.unique(key, axis=0, return_index=True, return_inverse=True)
    for place, earlier in enumerate(first[group.reshape(-1)]):
        if earlier != place:
            yield int(some[place]), int(some[earlier])


def _box_text(boxes: BoxColumns, index: int) -> str:
    return "box x {:g}, y {:g}, width {:g}, height {:g}".format(*boxes.xywh[index])


def _of_box(
    kind: str, split: str, boxes: BoxColumns, index: int, looks: Sequence[ScannedImage], message: str
) -> Finding:
    row = int(boxes.row[index])
    return finding(
        kind, split, message, image=looks[row].name, image_id=looks[row].image_id,
        annotation=int(boxes.id[index]), row=row, place=int(boxes.place[index]),
    )  # fmt: skip


def crowded_findings(
    split: str, boxes: BoxColumns, looks: Sequence[ScannedImage], num_queries: int
) -> Iterator[Finding]:
    """Images with more objects, crowds aside, than the model has queries."""
    counts = np.bincount(boxes.row[~boxes.crowd], minlength=len(looks))
    for row in np.flatnonzero(counts > num_queries).tolist():
        message = f"{counts[row]} objects, {num_queries} queries"
        one = looks[row]
        yield finding("more objects than queries", split, message, image=one.name, image_id=one.image_id, row=row)


def tiny_findings(
    split: str, boxes: BoxColumns, looks: Sequence[ScannedImage], names: Sequence[str], longest_edge: int
) -> Iterator[Finding]:
    """One finding a class whose boxes are tiny once images are shrunk to `longest_edge`; it names the tiniest."""
    with np.errstate(divide="ignore", invalid="ignore"):
        own = boxes.size.max(1, initial=0)
        shorter: NDArray[np.float64] = boxes.xywh[:, 2:].min(1, initial=np.inf) * (longest_edge / own)
        tiny = boxes.valid & (own - longest_edge >= _ROUNDING) & (shorter < TINY_PX)
    for label, name in enumerate(names):
        of_class = boxes.label == label
        some = np.flatnonzero(tiny & of_class)
        if len(some):
            tiniest = int(some[shorter[some].argmin()])
            message = (
                f"{len(some)} of {int(of_class.sum())} boxes of {name!r} are under {TINY_PX:g} pixels at longest_edge "
                f"{longest_edge}; this one is {shorter[tiniest]:.1f} pixels thin"
            )
            yield _of_box("tiny after resize", split, boxes, tiniest, looks, message)


def unrecorded_files(looks: DatasetScan) -> Iterator[Finding]:
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


_NAMED = 3

_Place = tuple[str, int]  # split and row


@dataclass(frozen=True)
class Duplicates:
    """The findings, and for each split how many of its images are the same as, or look like, one of a split before it."""

    findings: list[Finding]
    leaked: dict[str, int]


def find_duplicates(looks: DatasetScan) -> Duplicates:
    """Exact copies first, one finding each; then what looks alike, one finding for a group and split."""
    copies, firsts = _exact(looks)
    leaked = dict.fromkeys(looks.splits, 0)
    findings = []
    for place, first in copies:
        across = place[0] != first[0]
        leaked[place[0]] += across
        findings.append(_copy(looks, place, first, "leakage" if across else "duplicate image"))
    prints = [looks.splits[split][row].fingerprint for split, row in firsts]
    for group in similar_groups(prints):
        members: dict[str, list[int]] = {split: [] for split in looks.splits}
        for index in group:
            members[firsts[index][0]].append(firsts[index][1])
        for split, rows in members.items():
            findings.extend(_within(looks, split, rows))
        for one, count in _across(looks, members):
            findings.append(one)
            leaked[one.split] += count
    return Duplicates(findings, leaked)


def _exact(looks: DatasetScan) -> tuple[list[tuple[_Place, _Place]], list[_Place]]:
    """Copies, each with the first that has the same bytes, and all firsts."""
    first: dict[bytes, _Place] = {}
    copies = []
    for split, some in looks.splits.items():
        for row, one in enumerate(some):
            if one.digest and first.setdefault(one.digest, (split, row)) != (split, row):
                copies.append(((split, row), first[one.digest]))
    return copies, list(first.values())


def _copy(looks: DatasetScan, place: _Place, first: _Place, kind: str) -> Finding:
    other = looks.splits[first[0]][first[1]]
    message = f"the same bytes as {other.name}" + (f" in {first[0]}" if first[0] != place[0] else "")
    return _finding(kind, looks, place, message, first)


def _within(looks: DatasetScan, split: str, rows: Sequence[int]) -> Iterator[Finding]:
    if len(rows) > 1:
        others = [looks.splits[split][row] for row in rows[1:]]
        yield _finding("near duplicate", looks, (split, rows[0]), f"looks like {_named(others)}", (split, rows[1]))


def _across(looks: DatasetScan, members: Mapping[str, Sequence[int]]) -> Iterator[tuple[Finding, int]]:
    """For each split with members that look like those of splits before it: the closest, and how many there are."""
    before: list[_Place] = []
    for split, rows in members.items():
        if before and rows:
            apart, which = nearest(
                [looks.splits[split][row].fingerprint for row in rows],
                [looks.splits[other][row].fingerprint for other, row in before],
            )
            near = int((apart <= MAX_DISTANCE).sum())
            if near:
                closest = int(apart.argmin())
                other = before[int(which[closest])]
                name = f"{looks.splits[other[0]][other[1]].short} in {other[0]}"
                rest = f"; in {split} {near - 1} more look like that one or its like"
                message = f"looks like {name}" + (rest if near > 1 else "")
                yield _finding("leakage", looks, (split, rows[closest]), message, other), near
        before += [(split, row) for row in rows]


def _finding(kind: str, looks: DatasetScan, place: _Place, message: str, like: _Place) -> Finding:
    one = looks.splits[place[0]][place[1]]
    return finding(kind, place[0], message, image=one.name, image_id=one.image_id, row=place[1], like=like)


def _named(some: Sequence[ScannedImage]) -> str:
    rest = len(some) - _NAMED
    return ", ".join(one.short for one in some[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def missing_classes(splits: Mapping[str, SplitSummary]) -> Iterator[Finding]:
    """One finding for each class that a split has no box of; one in all for a class that no split has a box of."""
    for name in next(iter(splits.values())).boxes_per_class:
        lacking = [split for split, one in splits.items() if not one.boxes_per_class.get(name)]
        if len(lacking) == len(splits):
            yield finding("class missing", ", ".join(splits), f"no box of class {name!r} in any split")
        else:
            for split in lacking:
                yield finding("class missing", split, f"no box of class {name!r}")


def similar_names(names: Sequence[str], splits: Mapping[str, SplitSummary]) -> Iterator[Finding]:
    """One finding for each group of names that are the same but for case, blanks and a plural s."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_plain(name), []).append(name)
    for group in groups.values():
        if len(group) > 1:
            counts = {name: sum(one.boxes_per_class.get(name, 0) for one in splits.values()) for name in group}
            told = ", ".join(f"{name!r} ({count})" for name, count in counts.items())
            yield finding(
                "similar class names",
                ", ".join(splits),
                f"{told} are nearly the same name; in brackets the number of boxes",
            )


def _plain(name: str) -> str:
    """The name in small letters, without blanks, hyphens and a plural s; single letters stay as they are."""
    plain = re.sub(r"[\s_-]+", "", name)
    if len(plain) < 2:
        return plain
    plain = plain.casefold()
    return plain[:-1] if len(plain) > 3 and plain.endswith("s") and not plain.endswith("ss") else plain
