"""Checks of a data set: image files, copies of images, and classes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detr_ft.data.doctor.finding import Finding, finding
from detr_ft.data.doctor.statistics import BoxColumns, SplitSummary
from detr_ft.data.duplicates import MAX_DISTANCE, nearest, similar_groups
from detr_ft.data.integrity.annotated_size import TURNED, AnnotatedImage, AnnotatedSizes, Rescaling, unclear_reason
from detr_ft.data.integrity.scan import DatasetScan, ScannedImage
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.sources.listing import images_in
from detr_ft.data.sources.problems import Problem
from detr_ft.errors import InputError

_FIRST_SWAPPING_ORIENTATION = 5  # EXIF orientations from this on swap width and height; 2 to 4 don't
_MIRRORED = "mirrored or turned upside down, as in EXIF"
_MAX_NAMES = 3

_Row = tuple[str, int]  # split, and row in it


def image_findings(
    split: str, scans: Sequence[ScannedImage], images: Sequence[AnnotatedImage], sizes: AnnotatedSizes
) -> Iterator[Finding]:
    """Yield findings of images that can't be read, that EXIF turns, or that differ from their annotations."""
    for row, (scan, image, rescaling) in enumerate(zip(scans, images, map(sizes.fit, images), strict=True)):
        troubles = (
            [(scan.trouble, scan.message, "")]
            if scan.trouble
            else _image_troubles(image, rescaling, sizes.show_turning)
        )
        for kind, message, cause in troubles:
            yield finding(kind, split, message, image=scan.name, image_id=scan.image_id, row=row, cause=cause)


def _image_troubles(
    image: AnnotatedImage, rescaling: Rescaling | None, show_turning: bool
) -> Iterator[tuple[str, str, str]]:
    """Yield kind, message and cause.

    `show_turning`: sizes of other images show if boxes were drawn before EXIF was applied.
    """
    (width, height), turned = image.file.upright, image.file.orientation
    moved = rescaling is not None and rescaling.how == TURNED
    if turned > 1:
        text = "EXIF orientation {} turns or mirrors {}x{} as stored".format(turned, *image.file.stored)
        swaps_sides = turned >= _FIRST_SWAPPING_ORIENTATION
        if moved:
            yield "exif rotation", f"{text}; its boxes seem to be drawn on the image as stored", ""
        elif not swaps_sides and image.boxes and rescaling is not None and not show_turning:
            yield "exif mirroring", f"{text}; it is unclear if its boxes were drawn before or after that", ""
        else:
            yield "exif rotation", text, ""
    if rescaling is None:
        yield "unclear size", unclear_reason(image), ""
    elif rescaling.how:
        cause = _MIRRORED if moved and turned < _FIRST_SWAPPING_ORIENTATION else rescaling.how
        size = f"is {width}x{height}" + (" when upright" if turned > 1 else "")
        yield "wrong size", "stated {}x{}, ".format(*image.stated) + f"{size}; boxes: {cause}", cause


def file_findings(problems: Sequence[Problem], scan: DatasetScan) -> Iterator[Finding]:
    """Yield the problems of annotation files, except unknown classes: `box_findings` has them."""
    for problem in problems:
        if problem.kind == "unknown class":
            continue
        if problem.split is None or problem.row is None:
            yield finding(problem.kind, problem.split or ", ".join(scan.splits), problem.message, cause=problem.cause)
        else:
            image = scan.splits[problem.split][problem.row]
            yield finding(
                problem.kind, problem.split, problem.message, image=image.name, image_id=image.image_id,
                row=problem.row, place=problem.place, cause=problem.cause,
            )  # fmt: skip


def unrecorded_files(scan: DatasetScan, annotated: Collection[Path] = ()) -> Iterator[Finding]:
    """Yield the image files in the folders of the data that neither a split nor `annotated` has."""
    folders: dict[Path, str] = {}
    listed = set(annotated)
    for split, images in scan.splits.items():
        for path in (Path(image.path) for image in images if image.path is not None):
            listed.add(path)
            folders.setdefault(path.parent, split)
    for folder, split in folders.items():
        for path in images_in(folder):
            if path not in listed:
                yield finding("no record", split, "the annotations don't list this file", image=str(path))


def thin_findings(split: str, scans: Sequence[ScannedImage], longest_edge: int) -> Iterator[Finding]:
    """Yield the images with a side of 0 pixels after resizing, which training refuses."""
    form = ImageFormat({"max_height": longest_edge, "max_width": longest_edge}, (0.0,) * 3, (1.0,) * 3)
    for row, scan in enumerate(scans):
        try:
            if min(scan.size) > 0:
                form.resized(*scan.size)
        except InputError:
            message = "{}x{} pixels, so thin that a side has none at longest_edge {}".format(*scan.size, longest_edge)
            yield finding("too thin", split, message, image=scan.name, image_id=scan.image_id, row=row)


def copies_without_boxes(
    scan: DatasetScan, boxes: Mapping[str, BoxColumns], names: Sequence[str], groups: Sequence[Sequence[_Row]]
) -> Iterator[Finding]:
    """Yield images that lack a class that all other images of a group of similar ones have."""
    classes = {split: _classes_of_rows(columns, len(scan.splits[split])) for split, columns in boxes.items()}
    for group in groups:
        sets = [classes[split][row] for split, row in group]
        for index, (split, row) in enumerate(group):
            others = sets[:index] + sets[index + 1 :]
            for label in sorted(set.intersection(*others) - sets[index]):
                like = group[index - 1]
                name = names[label] if 0 <= label < len(names) else str(label)
                message = f"no box of {name!r}, which {scan.splits[like[0]][like[1]].short} and others like it have"
                yield _of_image("copy without boxes", scan, (split, row), message, like)


def _classes_of_rows(boxes: BoxColumns, rows: int) -> list[set[int]]:
    classes: list[set[int]] = [set() for _ in range(rows)]
    for row, label in zip(boxes.row.tolist(), boxes.label.tolist(), strict=True):
        classes[row].add(label)
    return classes


@dataclass(frozen=True)
class Duplicates:
    """The findings, and for each split the number of images that are the same as, or like, earlier ones.

    `groups` are images that look alike, each as split and row, without exact copies.
    """

    findings: list[Finding]
    leaked: dict[str, int]
    groups: list[list[_Row]]


def find_duplicates(scan: DatasetScan) -> Duplicates:
    """Find exact copies, one finding each, then similar images, one finding for a group and split."""
    copies, originals = _exact_copies(scan)
    leaked = dict.fromkeys(scan.splits, 0)
    findings = []
    for row, original in copies:
        across = row[0] != original[0]
        leaked[row[0]] += across
        findings.append(_copy(scan, row, original, "leakage" if across else "duplicate image"))
    fingerprints = [scan.splits[split][row].fingerprint for split, row in originals]
    groups = similar_groups(fingerprints)
    for group in groups:
        members: dict[str, list[int]] = {split: [] for split in scan.splits}
        for index in group:
            members[originals[index][0]].append(originals[index][1])
        for split, rows in members.items():
            findings.extend(_within_split(scan, split, rows))
        for leak, count in _across_splits(scan, members):
            findings.append(leak)
            leaked[leak.split] += count
    return Duplicates(findings, leaked, [[originals[index] for index in group] for group in groups])


def _exact_copies(scan: DatasetScan) -> tuple[list[tuple[_Row, _Row]], list[_Row]]:
    """Return copies, each with the first row of the same bytes, and all first rows."""
    first: dict[bytes, _Row] = {}
    copies = []
    for split, images in scan.splits.items():
        for row, image in enumerate(images):
            if image.digest and first.setdefault(image.digest, (split, row)) != (split, row):
                copies.append(((split, row), first[image.digest]))
    return copies, list(first.values())


def _copy(scan: DatasetScan, row: _Row, original: _Row, kind: str) -> Finding:
    other = scan.splits[original[0]][original[1]]
    message = f"the same bytes as {other.name}" + (f" in {original[0]}" if original[0] != row[0] else "")
    return _of_image(kind, scan, row, message, original)


def _within_split(scan: DatasetScan, split: str, rows: Sequence[int]) -> Iterator[Finding]:
    if len(rows) > 1:
        names = _listed([scan.splits[split][row].short for row in rows[1:]])
        yield _of_image("near duplicate", scan, (split, rows[0]), f"looks like {names}", (split, rows[1]))


def _across_splits(scan: DatasetScan, members: Mapping[str, Sequence[int]]) -> Iterator[tuple[Finding, int]]:
    """Yield for each split with images like those of earlier splits the closest, and their number."""
    earlier: list[_Row] = []
    for split, rows in members.items():
        if earlier and rows:
            distances, indices = nearest(
                [scan.splits[split][row].fingerprint for row in rows],
                [scan.splits[other][row].fingerprint for other, row in earlier],
            )
            count = int((distances <= MAX_DISTANCE).sum())
            if count:
                closest = int(distances.argmin())
                other = earlier[int(indices[closest])]
                message = f"looks like {scan.splits[other[0]][other[1]].short} in {other[0]}"
                rest = f"; in {split} {count - 1} more look like it or similar images"
                message += rest if count > 1 else ""
                yield _of_image("leakage", scan, (split, rows[closest]), message, other), count
        earlier += [(split, row) for row in rows]


def _of_image(kind: str, scan: DatasetScan, row: _Row, message: str, like: _Row) -> Finding:
    image = scan.splits[row[0]][row[1]]
    return finding(kind, row[0], message, image=image.name, image_id=image.image_id, row=row[1], like=like)


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def missing_classes(splits: Mapping[str, SplitSummary]) -> Iterator[Finding]:
    """Yield a finding for each class and split without boxes of it; only one for a class without any."""
    for name in next(iter(splits.values())).boxes_per_class:
        empty = [split for split, summary in splits.items() if not summary.boxes_per_class.get(name)]
        if len(empty) == len(splits):
            yield finding("class missing", ", ".join(splits), f"no box of class {name!r} in any split")
        else:
            for split in empty:
                yield finding("class missing", split, f"no box of class {name!r}")


def similar_names(names: Sequence[str], splits: Mapping[str, SplitSummary]) -> Iterator[Finding]:
    """Yield a finding for each group of names that differ only in case, blanks and a plural s."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_plain(name), []).append(name)
    for group in groups.values():
        if len(group) > 1:
            counts = {name: sum(split.boxes_per_class.get(name, 0) for split in splits.values()) for name in group}
            text = ", ".join(f"{name!r} ({count})" for name, count in counts.items())
            message = f"{text} are nearly the same name; in brackets the number of boxes"
            yield finding("similar class names", ", ".join(splits), message)


def _plain(name: str) -> str:
    """Return the name in lower case, without blanks, hyphens and a plural s; single letters do not change."""
    plain = re.sub(r"[\s_-]+", "", name)
    if len(plain) < 2:
        return plain
    plain = plain.casefold()
    return plain[:-1] if len(plain) > 3 and plain.endswith("s") and not plain.endswith("ss") else plain
