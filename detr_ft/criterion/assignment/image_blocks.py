"""A batch a few images at a time, so that what is computed for every target and query stays in a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from detr_ft.structures import Targets


def blocks(targets: Targets, most: int) -> Iterator[tuple[slice, Targets]]:
    """The targets image by image, in blocks of up to `most` where an image has no more: their place, and they.

    A block is a batch of all images, of which only some have targets.
    """
    if len(targets.labels) <= most:
        yield slice(None), targets
        return
    start, counts = 0, targets.counts
    for first, last in _runs(counts, most):
        stop = start + sum(counts[first:last])
        here = (0,) * first + counts[first:last] + (0,) * (len(counts) - last)
        place = slice(start, stop)
        labels, boxes, image = targets.labels[place], targets.boxes[place], targets.image[place]
        yield place, replace(targets, labels=labels, boxes=boxes, image=image, counts=here)
        start = stop


def _runs(counts: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Successive runs of images, as first and one past the last, whose counts add up to at most `most`, or single ones."""
    first, held = 0, 0
    for index, count in enumerate(counts):
        if held and held + count > most:
            yield first, index
            first, held = index, 0
        held += count
    if held:
        yield first, len(counts)
