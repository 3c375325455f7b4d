"""A defect, where it is, and what it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "info"]

LEVELS: tuple[Level, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Kind:
    """`error`: training would refuse the data, or learn what is wrong; `warning`: look at it; `info`: good to know."""

    level: Level
    what: str
    why: str
    remedy: str


KINDS: dict[str, Kind] = {
    "missing file": Kind(
        "error",
        "The annotations name an image file that doesn't exist.",
        "Training stops when it comes to the image.",
        "restore the file, or remove the image from the annotations",
    ),
    "unreadable": Kind(
        "error",
        "The file is no image, or of a format that isn't read.",
        "Training stops when it comes to the image.",
        "replace the file by a JPEG or PNG that opens, or remove the image",
    ),
    "truncated": Kind(
        "error",
        "The file begins as an image and then breaks off, or is damaged.",
        "Training stops when it comes to the image; other programs show its lower part grey.",
        "copy or download the file again, or remove the image",
    ),
    "too large": Kind(
        "error",
        "The image has more pixels than is safe to decode.",
        "A single one can take all of the memory.",
        "make the image smaller, together with its boxes",
    ),
    "unclear size": Kind(
        "error",
        "The image was changed since it was annotated, and neither its size nor its boxes tell how.",
        "Every box may be at the wrong place, so that training refuses the image.",
        "state the true size, with boxes that fit it; or say which it is with --fix COPY --drawn-on stated (or file)",
    ),
    "wrong size": Kind(
        "warning",
        "The annotations state another size than the file has upright, or their boxes are on the image as stored.",
        "Training takes the true size, and turns or scales the boxes as told here; other programs may not.",
        "check that the boxes fit the image as you see it, and write the true size",
    ),
    "box format": Kind(
        "error",
        "The boxes of the whole split aren't x, y, width, height in pixels.",
        "Every box would be learned at the wrong place and size.",
        "convert them to x, y, width, height in pixels",
    ),
    "not finite": Kind(
        "error",
        "A box holds NaN, an infinite number, or one so large that a computer makes it infinite.",
        "One such number in a loss makes every weight of the model NaN; training leaves the box out.",
        "remove the box or write its numbers",
    ),
    "unknown class": Kind(
        "error",
        "A box's class is none of the data set's.",
        "There is no output for it; the number just beyond the last would be learned as background.",
        "give the box one of the data set's classes",
    ),
    "leakage": Kind(
        "warning",
        "An image of one split is the same as one of another split, or looks like it.",
        "The model has seen what it is measured on: scores come out too high.",
        "keep images that are alike in one split: remove the copies, or split the data anew",
    ),
    "zero size": Kind(
        "warning",
        "A box has no width or no height.",
        "Nothing can be learned from it; training leaves it out.",
        "remove the box or draw it again",
    ),
    "negative size": Kind(
        "warning",
        "A box has a negative width or height.",
        "Training leaves it out, so that its object is learned as background.",
        "boxes are x, y, width, height: check that these aren't two corners in the wrong order",
    ),
    "outside": Kind(
        "warning",
        "A box leaves its image.",
        "Training clips it, and leaves out one that lies wholly outside; often it is a box of another image or size.",
        "check that boxes are x, y, width, height in pixels of this image, then clip them",
    ),
    "duplicate box": Kind(
        "warning",
        "The same box with the same class stands twice in an image.",
        "The model learns to find the object twice, and is marked down where it finds it once.",
        "remove all but one",
    ),
    "duplicate image": Kind(
        "warning",
        "Two images of a split are the same file.",
        "It counts twice, and where their boxes differ, one copy contradicts the other.",
        "keep one, with the boxes of all: --fix COPY does so",
    ),
    "more objects than queries": Kind(
        "warning",
        "An image holds more objects than the model has queries.",
        "A query finds one object at the most: those beyond can't be learned or found.",
        "give the model more queries",
    ),
    "no record": Kind(
        "warning",
        "An image file lies beside the others, and the annotations don't name it.",
        "It takes no part in training; perhaps its annotations were lost.",
        "annotate the image, or move it elsewhere",
    ),
    "class missing": Kind(
        "warning",
        "A split has no box of a class.",
        "Without boxes to train on a class isn't learned; without boxes to evaluate on nothing is known of it.",
        "add images of this class to the split, or split the data anew; a class that no split has, take out of the names",
    ),
    "similar class names": Kind(
        "warning",
        "Class names differ in case, blanks or a plural s alone.",
        "What is one class to people is learned as two, which compete.",
        "give them one name, unless they do mean different things; --fix COPY merges those that case or blanks around tell apart",
    ),
    "exif mirroring": Kind(
        "warning",
        "The camera stored the image mirrored or upside down, with a note how to show it that its size doesn't betray.",
        "Training takes the boxes as drawn on the image as a viewer shows it; if the program that they were drawn in didn't "
        "heed the note, every one is at the wrong place.",
        "look at the pictures that --report FILE draws: if the boxes fit, all is well; if not, take the note out of the files "
        "(exiftool -Orientation= FILE)",
    ),
    "near duplicate": Kind(
        "info",
        "Images of a split look alike: frames of a video, one scene taken many times, copies saved anew.",
        "They add less than their number promises.",
        "nothing; when you split the data anew, keep a group in one split",
    ),
    "tiny after resize": Kind(
        "info",
        "Once the image is resized, a box's shorter side is under 4 pixels.",
        "So little is left of the object that it is hardly found.",
        "train with a larger longest_edge, or cut the images into tiles",
    ),
    "exif rotation": Kind(
        "info",
        "The camera stored the image turned or mirrored, with a note how to show it.",
        "All is well if the boxes were drawn on the image as a viewer shows it.",
        "nothing, if the boxes fit the image as a viewer shows it",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One defect: `image` names the file, `annotation` is the box's own id.

    `row` is the image's place in its split and `place` the box's among the image's objects, from 0; `like` is split and
    row of another image that this one is like. `sort` tells apart what a kind has several of.
    """

    kind: str
    level: Level
    split: str
    image: str | None
    image_id: int | None
    annotation: int | None
    message: str
    remedy: str
    row: int | None = None
    place: int | None = None
    like: tuple[str, int] | None = None
    sort: str | None = None

    @property
    def where(self) -> str:
        """Split, file, image id and annotation id, as far as there are any."""
        box = "" if self.annotation is None else f", annotation {self.annotation}"
        return (self.split if self.image is None else f"{self.split}, {self.image}") + box

    def __str__(self) -> str:
        return f"{self.level}: {self.kind}: {self.where}: {self.message}"


def finding(
    kind: str,
    split: str,
    message: str,
    *,
    image: str | None = None,
    image_id: int | None = None,
    annotation: int | None = None,
    row: int | None = None,
    place: int | None = None,
    like: tuple[str, int] | None = None,
    sort: str | None = None,
) -> Finding:
    """A finding with the level and the remedy of its kind."""
    known = KINDS[kind]
    return Finding(
        kind, known.level, split, image, image_id, annotation, message, known.remedy, row, place, like, sort
    )  # fmt: skip


def by_kind(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """The findings of each kind that occurs: errors first, then warnings, then what is good to know."""
    found = list(findings)
    ordered = sorted(KINDS, key=lambda kind: LEVELS.index(KINDS[kind].level))
    grouped = {kind: [one for one in found if one.kind == kind] for kind in ordered}
    return {kind: some for kind, some in grouped.items() if some}


def by_sort(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """The findings of each sort, the most frequent first; those of none are left out."""
    grouped: dict[str, list[Finding]] = {}
    for one in findings:
        if one.sort is not None:
            grouped.setdefault(one.sort, []).append(one)
    return dict(sorted(grouped.items(), key=lambda pair: -len(pair[1])))
