"""Advice for training from the statistics of a data set, each with its reason."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from detr_ft.data.doctor.statistics import SplitStatistics

_MIN_EDGE_PX, _MAX_EDGE_PX, _EDGE_STEP_PX = 256, 1333, 32
_MIN_ENLARGED_EDGE_PX = 128  # the feature map of a backbone of stride 32 then has 4 x 4 positions
_MIN_BOX_SIDE_PX = 8  # of nine boxes in ten, after resizing
_QUERY_COUNTS = (100, 150, 200, 300, 500, 900)
_QUERIES_PER_OBJECT = 1.5
_MIN_BOXES_PER_CLASS = 10
_RARE_CLASS_RATIO = 10  # times fewer images than the median class
_FEW_IMAGES, _SOME_IMAGES, _MANY_IMAGES = 100, 1_000, 20_000
_MAX_NAMES = 8


@dataclass(frozen=True)
class Advice:
    """One piece of advice: its topic, the proposed value if there is one, and the text."""

    topic: str
    value: int | None
    text: str

    def __str__(self) -> str:
        return self.text


def advise(splits: Mapping[str, SplitStatistics]) -> tuple[Advice, ...]:
    """Return all advice for a data set, from the statistics of its splits."""
    train = splits.get("train") or next(iter(splits.values()))
    advice = [longest_edge(train), num_queries(splits), expectation(train), *_on_classes(train)]
    if "validation" not in splits and "train" in splits:
        advice.append(Advice("splits", None, "There is no validation split: a part of train is used instead."))
    return tuple(advice)


def longest_edge(split: SplitStatistics) -> Advice:
    """Advise the edge of resized images: 256 to 1333 pixels, a multiple of 32.

    It is at most the median image's, but at least 128.
    """
    median = split.longest_side.median
    fraction = split.shorter_share.tenth
    largest = _MAX_EDGE_PX // _EDGE_STEP_PX * _EDGE_STEP_PX
    required = _MIN_BOX_SIDE_PX / fraction if fraction else _MAX_EDGE_PX
    edge = min(math.ceil(max(_MIN_EDGE_PX, required) / _EDGE_STEP_PX) * _EDGE_STEP_PX, largest)
    if 0 < median < edge:
        edge = max(_MIN_ENLARGED_EDGE_PX, int(median) // _EDGE_STEP_PX * _EDGE_STEP_PX)
        reason = f"half of the images are no larger than {median:g} pixels, and "
        reason += (
            "enlarging them adds nothing"
            if edge <= median
            else "smaller ones would have too few positions in the model"
        )
    elif fraction:
        reason = f"nine boxes in ten then have a shorter side of {fraction * edge:.0f} pixels or more"
    else:
        reason = "there are no boxes"
    return Advice("longest_edge", edge, f"data.longest_edge: {edge}, since {reason}.")


def enough_queries(splits: Mapping[str, SplitStatistics], queries: int) -> Advice:
    """Advise a number of queries for a checkpoint: its own if that suffices."""
    objects, advised = _max_objects(splits), num_queries(splits).value or queries
    text = f"The checkpoint has {queries} queries: "
    if math.ceil(_QUERIES_PER_OBJECT * objects) <= queries:
        return Advice("num_queries", queries, f"{text}they suffice, since no image has more than {objects} objects.")
    text += f"too few for images of {objects} objects" if objects > queries else f"few for images of {objects} objects"
    return Advice(
        "num_queries", advised, f"{text}. model.num_queries: {advised} gives each object one, and a choice in matching."
    )


def _max_objects(splits: Mapping[str, SplitStatistics]) -> int:
    return int(max(split.objects.most for split in splits.values()))


def num_queries(splits: Mapping[str, SplitStatistics]) -> Advice:
    """Advise 1.5 queries for each object of the fullest image, at least DETR's 100."""
    objects = _max_objects(splits)
    required = math.ceil(_QUERIES_PER_OBJECT * objects)
    value = next((count for count in _QUERY_COUNTS if count >= required), math.ceil(required / 100) * 100)
    if value == _QUERY_COUNTS[0]:
        text = f"num_queries: {max(1, required)} or more, as DETR's {value}, since no image has more than {objects} objects."
    else:
        text = f"num_queries: {value}, since an image has {objects} objects: one query each, and a choice in matching."
    return Advice("num_queries", value, text)


def expectation(split: SplitStatistics) -> Advice:
    """Advise a start for this number of images and boxes, and the result to expect."""
    counts = [count for count in split.boxes_per_class.values() if count]
    typical = round(statistics.median(counts)) if counts else 0
    start = f"{split.images} images, about {typical} boxes a class: "
    if split.images < _FEW_IMAGES:
        text = (
            "fine-tune a checkpoint trained on photographs, with a frozen backbone (model.freeze: [backbone]), and expect a "
            "first impression rather than a detector: more images help more than any setting."
        )
    elif split.images < _SOME_IMAGES:
        text = "fine-tune a checkpoint trained on photographs, with a frozen stem (model.freeze: [backbone.stem])."
    elif split.images < _MANY_IMAGES:
        text = "fine-tune the whole model; training from scratch needs more: DETR used 118,000 images."
    else:
        text = "fine-tune the whole model; from scratch, DETR needed hundreds of epochs on 118,000 images."
    return Advice("expectation", None, start + text)


def _on_classes(split: SplitStatistics) -> Iterator[Advice]:
    few = {name: count for name, count in split.boxes_per_class.items() if 0 < count < _MIN_BOXES_PER_CLASS}
    if few:
        names = _listed([f"{name} ({count})" for name, count in few.items()])
        text = f"Too few boxes to learn from, under {_MIN_BOXES_PER_CLASS}: {names}. Add images, or merge classes."
        yield Advice("few boxes", None, text)
    images = {name: count for name, count in split.images_per_class.items() if count}
    median = statistics.median(images.values()) if images else 0
    rare = {name: count for name, count in images.items() if count * _RARE_CLASS_RATIO <= median and name not in few}
    if rare:
        names = _listed([f"{name} (x{math.sqrt(median / count):.1f})" for name, count in rare.items()])
        text = (
            f"Rare, in {_RARE_CLASS_RATIO} times fewer images than the median class: {names}. Repeat their images by the "
            "factor in brackets, the square root of how much rarer they are (repeat-factor sampling)."
        )
        yield Advice("rare classes", None, text)


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")
