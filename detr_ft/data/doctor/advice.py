"""What the figures suggest for training: each advice is a sentence with its reason."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from detr_ft.data.doctor.statistics import SplitStatistics

_SMALLEST_EDGE, _LARGEST_EDGE, _STEP = 320, 1333, 32
_SEEN_SIDE = 8  # pixels that nine boxes in ten should keep
_QUERIES = (100, 150, 200, 300, 500, 900)
_ROOM = 1.5
_FEW_BOXES = 10
_RARE = 10  # times fewer images than the median class
_FEW_IMAGES, _SOME_IMAGES, _MANY_IMAGES = 100, 1_000, 20_000
_NAMED = 8


@dataclass(frozen=True)
class Advice:
    """One piece of advice: what it is about, the value that is proposed, if there is one, and the sentence."""

    topic: str
    value: int | None
    text: str

    def __str__(self) -> str:
        return self.text


def advise(figures: Mapping[str, SplitStatistics]) -> tuple[Advice, ...]:
    """All advice for a data set, from the figures of its splits."""
    train = figures.get("train") or next(iter(figures.values()))
    several = [longest_edge(train), num_queries(figures), expectation(train), *_on_classes(train)]
    if "validation" not in figures and "train" in figures:
        several.append(Advice("splits", None, "There is no validation split: part of train is held out for it."))
    return tuple(several)


def longest_edge(figures: SplitStatistics) -> Advice:
    """The edge to resize images to: 320 to 1333 pixels, a multiple of 32, no larger than the median image."""
    own = figures.longest_side.median
    share = figures.shorter_share.tenth
    wanted = _SEEN_SIDE / share if share else _LARGEST_EDGE
    edge = min(max(_SMALLEST_EDGE, wanted), _LARGEST_EDGE)
    edge = math.ceil(edge / _STEP) * _STEP if edge < _LARGEST_EDGE // _STEP * _STEP else _LARGEST_EDGE // _STEP * _STEP
    if 0 < own < edge:
        edge = max(_STEP, int(own) // _STEP * _STEP)
        why = f"half of the images are no larger than {own:g} pixels, and enlarging them adds nothing"
    elif share:
        why = f"nine boxes in ten then have a shorter side of {share * edge:.0f} pixels or more"
    else:
        why = "there are no boxes to judge by"
    return Advice("longest_edge", edge, f"data.longest_edge: {edge}, since {why}.")


def enough_queries(figures: Mapping[str, SplitStatistics], own: int) -> Advice:
    """Whether the queries that a checkpoint has suffice, and else how many to look for in another."""
    most, advised = _most_objects(figures), num_queries(figures)
    text = f"The checkpoint has {own} queries: "
    if most > own:
        text += (
            f"an image holds {most} objects, and those beyond can't be found. Take a checkpoint with {advised.value}."
        )
    elif math.ceil(_ROOM * most) > own:
        text += (
            f"few for images of up to {most} objects, each of which needs some choice. {advised.value} would be better."
        )
    else:
        text += f"they suffice, since no image holds more than {most} objects."
    return Advice("num_queries", own, text)


def _most_objects(figures: Mapping[str, SplitStatistics]) -> int:
    return int(max(one.objects.most for one in figures.values()))


def num_queries(figures: Mapping[str, SplitStatistics]) -> Advice:
    """Queries for one and a half times as many objects as any image has; 100, as DETR has them, where they suffice."""
    most = _most_objects(figures)
    wanted = math.ceil(_ROOM * most)
    value = next((step for step in _QUERIES if step >= wanted), math.ceil(wanted / 100) * 100)
    reason = f"no image holds more than {most} objects"
    if value == _QUERIES[0]:
        return Advice("num_queries", value, f"num_queries: {value} suffice, as DETR has them, since {reason}.")
    text = (
        f"num_queries: {value}, since an image holds {most} objects, and each needs a query of its own and some choice."
    )
    return Advice("num_queries", value, text)


def expectation(figures: SplitStatistics) -> Advice:
    """What to expect of so many images and boxes, and where to start from."""
    counts = [count for count in figures.boxes_per_class.values() if count]
    typical = round(statistics.median(counts)) if counts else 0
    start = f"{figures.images} images, about {typical} boxes a class: "
    if figures.images < _FEW_IMAGES:
        text = (
            "take a checkpoint that has seen photographs with a frozen backbone (model.freeze: [backbone]), do not train from scratch, and expect "
            "a first impression rather than a detector: more images help more than any setting."
        )
    elif figures.images < _SOME_IMAGES:
        text = "take a checkpoint that has seen photographs with a frozen stem (model.freeze: [backbone.stem]), do not train from scratch."
    elif figures.images < _MANY_IMAGES:
        text = "fine-tune all of the model, do not train from scratch: DETR's own training took 118,000 images."
    else:
        text = "fine-tune all of the model; from scratch it takes hundreds of epochs, as DETR's own training on 118,000 images did."
    return Advice("expectation", None, start + text)


def _on_classes(figures: SplitStatistics) -> Iterator[Advice]:
    few = {name: count for name, count in figures.boxes_per_class.items() if 0 < count < _FEW_BOXES}
    if few:
        named = _named({name: f"{name} ({count})" for name, count in few.items()})
        text = f"Too few boxes to learn from, under {_FEW_BOXES}: {named}. Add images, or merge the class with another."
        yield Advice("few boxes", None, text)
    holding = {name: count for name, count in figures.images_per_class.items() if count}
    usual = statistics.median(holding.values()) if holding else 0
    rare = {name: count for name, count in holding.items() if count * _RARE <= usual and name not in few}
    if rare:
        named = _named({name: f"{name} (x{math.sqrt(usual / count):.1f})" for name, count in rare.items()})
        text = (
            f"Rare, in {_RARE} times fewer images than the median class: {named}. Show their images more often, by the "
            "factor in brackets, the square root of how much rarer they are (repeat-factor sampling)."
        )
        yield Advice("rare classes", None, text)


def _named(told: Mapping[str, str]) -> str:
    rest = len(told) - _NAMED
    return ", ".join(list(told.values())[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
