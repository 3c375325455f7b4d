"""Kinds of findings of the doctor: the defect, its effect and its remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "info"]

LEVELS: tuple[Level, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Kind:
    """A kind of defect: `what` it is, `why` it matters and its `remedy`.

    Training refuses data with an `error` or learns something wrong; a `warning` should be checked; an `info` is a note.
    """

    level: Level
    what: str
    why: str
    remedy: str


KINDS: dict[str, Kind] = {
    "missing file": Kind(
        "error",
        "The annotations name an image file that doesn't exist.",
        "Training stops at this image.",
        "restore the file, or remove the image from the annotations",
    ),
    "unreadable": Kind(
        "error",
        "The file is not an image, or has an unsupported format.",
        "Training stops at this image.",
        "replace the file by a valid JPEG or PNG, or remove the image",
    ),
    "truncated": Kind(
        "error",
        "The image file is incomplete or damaged.",
        "Training stops at this image; other programs show its lower part gray.",
        "copy or download the file again, or remove the image",
    ),
    "too large": Kind(
        "error",
        "The image has more pixels than is safe to decode.",
        "A single such image can use all memory.",
        "make the image smaller, together with its boxes",
    ),
    "unclear size": Kind(
        "error",
        "The image was changed after annotation, and neither its size nor its boxes show how.",
        "Every box may be misplaced, so training refuses the image.",
        "state the true size, with boxes that fit it, or use --fix COPY --drawn-on stated (or file)",
    ),
    "wrong size": Kind(
        "warning",
        "The annotations state a size that differs from the upright file's, or their boxes are on the image as stored.",
        "Training uses the true size, and turns or scales the boxes as listed here; other programs may not.",
        "check that the boxes fit the image in a viewer, and write the true size",
    ),
    "box format": Kind(
        "error",
        "The boxes of the whole split are not x, y, width, height in pixels.",
        "Every box would have a wrong position and size.",
        "convert them to x, y, width, height in pixels",
    ),
    "not finite": Kind(
        "error",
        "A box contains NaN, infinity, or a number so large that computing with it gives infinity.",
        "One such number in a loss makes every weight of the model NaN. Training refuses the image.",
        "correct the numbers, or remove the box; --fix COPY leaves out the box, or an image without another one",
    ),
    "unknown class": Kind(
        "error",
        "The class of a box is not a class of the data set.",
        "The model has no output for it. Without the box its image would be learned as if nothing were there.",
        "name the class in the data set, or give the box another class; --fix COPY leaves the image out",
    ),
    "unreadable annotation": Kind(
        "error",
        "A part of an annotation can't be read.",
        "Its image would be learned as if the object were not there, so training refuses the image.",
        "correct the place in the file; --fix COPY leaves the image out",
    ),
    "missing label": Kind(
        "error",
        "An image has neither a label file nor a record, and data.unlabeled is error, or no image of its split has any.",
        "If its labels are lost, it would be learned as if nothing were there. Training refuses it.",
        "restore the labels, give the image an empty label file, or choose data.unlabeled: background or skip",
    ),
    "lost annotation": Kind(
        "warning",
        "An annotation, or a file of them, is used for no image of the data set.",
        "Its objects are not used.",
        "restore the image or its name, or remove the annotation; --fix COPY leaves it out",
    ),
    "no train split": Kind(
        "warning",
        "The data set has no train split.",
        "It can be evaluated on, but training refuses it.",
        "none for data to evaluate on; else name the files or folders to train on train",
    ),
    "no split": Kind(
        "warning",
        "Images belong to none of the splits train, validation and test.",
        "They are left out: no run trains or evaluates on them.",
        "name their split train, validation or test, or remove them from the annotations",
    ),
    "repeated image": Kind(
        "warning",
        "Several records name one image file.",
        "It is one image with the objects of all; other programs may lack those of some records.",
        "unite the records, as --fix COPY does; correct the names if they are different images",
    ),
    "repeated id": Kind(
        "warning",
        "An id occurs more than once.",
        "Everything is read; other programs may use only one of the entries.",
        "give each entry an id of its own, as --fix COPY does",
    ),
    "contradiction": Kind(
        "warning",
        "The file that describes the data set contradicts itself.",
        "One of its statements is used, as listed here; other programs may use the other one.",
        "correct the file",
    ),
    "unlabeled": Kind(
        "warning",
        "An image has neither a label file nor a record.",
        "It is learned as an image without objects: right for images of nothing, wrong if its labels are lost.",
        "look at the pictures; an empty label file declares an image without objects, data.unlabeled: skip leaves all out",
    ),
    "shape without area": Kind(
        "warning",
        "A point or a line is annotated beside boxes.",
        "It is no box and is not used.",
        "none, if it belongs to an object that also has a box; else draw a box",
    ),
    "unclear rows": Kind(
        "warning",
        "The rows of label files can be quadrilaterals, or boxes with keypoints.",
        "They are read as quadrilaterals; of boxes with keypoints all boxes would be wrong.",
        "look at the pictures; for keypoints write kpt_shape: [2, 2] into data.yaml",
    ),
    "too thin": Kind(
        "error",
        "An image is so thin that a side has no pixel after resizing.",
        "Training refuses it.",
        "crop the image, or train with a larger longest_edge",
    ),
    "repaired copy": Kind(
        "info",
        "The data are a copy by --fix that lacks images of the original.",
        "The findings of a copy do not cover the images that were left out.",
        "none, if the images in its changes.jsonl may be missing; else repair the original files",
    ),
    "boxes at the border": Kind(
        "warning",
        "Many boxes share an edge or a corner of their image.",
        "An exporter that loses the offset of boxes moves them there; the model would learn a wrong place.",
        "look at the pictures; if the boxes do not fit the objects, export the annotations again",
    ),
    "boxes never vary": Kind(
        "warning",
        "The same box is in many images.",
        "The model learns one place instead of objects.",
        "look at the pictures; draw the boxes of each image, or use a classifier if there is one object in one place",
    ),
    "one size": Kind(
        "warning",
        "All boxes of a class have one width and height.",
        "Boxes made from points have a fixed size; if it does not fit the objects, sizes are learned wrongly.",
        "look at the pictures; draw boxes around the objects",
    ),
    "copy without boxes": Kind(
        "warning",
        "An image has no box of a class that all images like it have.",
        "If the object is there without a box or with another class, the model learns that it is not.",
        "look at the pictures; add the boxes or correct their classes, or leave the image out",
    ),
    "leakage": Kind(
        "warning",
        "An image of one split is the same as an image of another split, or looks like it.",
        "The model is evaluated on images of its training: metrics are too high.",
        "put similar images into one split: remove the copies, or split the data again",
    ),
    "no usable box": Kind(
        "error",
        "None of the boxes of an image has an area inside it.",
        "Without its boxes the image would be learned as if nothing were there. Training refuses it.",
        "draw the boxes again, or remove the image; --fix COPY leaves the image out",
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
        "boxes are x, y, width, height: check that these are not two corners in the wrong order",
    ),
    "under a pixel": Kind(
        "warning",
        "A box is thinner than a pixel.",
        "Nothing can be seen in it; boxes in fractions of the image look like this.",
        "check that boxes are x, y, width, height in pixels, and draw these again",
    ),
    "outside": Kind(
        "warning",
        "A box extends beyond its image.",
        "Training clips it, or leaves it out if all of it is outside; it may belong to another image or size.",
        "check that boxes are x, y, width, height in pixels of this image, then clip them",
    ),
    "duplicate box": Kind(
        "warning",
        "An image has the same box with the same class twice.",
        "The model learns to detect the object twice; one of two correct detections counts as wrong.",
        "remove all but one",
    ),
    "duplicate image": Kind(
        "warning",
        "Two images of a split are the same file.",
        "It counts twice, and if their boxes differ, one copy contradicts the other.",
        "use one, with the boxes of all, as --fix COPY does",
    ),
    "more objects than queries": Kind(
        "warning",
        "An image has more objects than the model has queries.",
        "A query detects at most one object: the others can't be learned or detected.",
        "use a model with more queries",
    ),
    "no record": Kind(
        "warning",
        "An image file is in the folder of the others, but the annotations don't list it.",
        "It is not used in training; its annotations may be lost.",
        "annotate the image, or move it elsewhere",
    ),
    "class missing": Kind(
        "warning",
        "A split has no box of a class.",
        "Without boxes in train a class isn't learned; without boxes in validation it isn't evaluated.",
        "add images of this class to the split, or split the data again; remove the name of a class that no split has",
    ),
    "similar class names": Kind(
        "warning",
        "Class names differ only in case, blanks or a plural s.",
        "One real class is learned as two, which compete.",
        "give them one name if they mean the same; --fix COPY merges names that differ in case or outer blanks",
    ),
    "exif mirroring": Kind(
        "warning",
        "The image is stored mirrored or upside down, with an EXIF orientation that its size does not show.",
        "Training uses boxes as drawn on the image in a viewer; if the annotation tool ignored EXIF, all are misplaced.",
        "check the pictures of --report FILE; if the boxes don't fit, remove the orientation (exiftool -Orientation= FILE)",
    ),
    "near duplicate": Kind(
        "info",
        "Images of a split look alike: frames of a video, one scene taken many times, copies saved again.",
        "They contribute less than their number suggests.",
        "none; if you split the data again, put a group into one split",
    ),
    "tiny after resize": Kind(
        "info",
        "After resizing, the shorter side of a box is under 4 pixels.",
        "Few pixels of the object remain, so it is rarely detected.",
        "train with a larger longest_edge, or cut the images into tiles",
    ),
    "exif rotation": Kind(
        "info",
        "The image is stored turned or mirrored, with an EXIF orientation.",
        "The data is valid if the boxes were drawn on the image in a viewer.",
        "none, if the boxes fit the image in a viewer",
    ),
}
