"""Whether every image can be decoded, found out before training rather than in its third hour."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset

from detr_ft.data.images import ImageError, open_image
from detr_ft.errors import UserError


@dataclass(frozen=True)
class BadImage:
    """An image that can't be decoded: its row, and why, with its name."""

    row: int
    why: str


def bad_images(split: Dataset) -> list[BadImage]:
    """The images of a split that can't be decoded, in its order. The processes of a run share the work; each gets all."""
    state = PartialState()
    mine = range(state.process_index, len(split), state.num_processes)
    images = split.with_format(None).select_columns(["image"])
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves Python's lock alone
        tried = [bad for bad in pool.map(partial(_try, images), mine) if bad]
    return sorted(gather_object(tried), key=lambda bad: bad.row)


def without_bad_images(split: Dataset, bad: list[BadImage], most: float) -> Dataset:
    """The split without its bad images. Raises UserError where they are more than the fraction `most` of it."""
    if len(bad) > most * len(split):
        raise UserError(
            [one.why for one in bad[:10]]
            + [f"{len(bad)} of {len(split)} images can't be read, more than data.max_bad_fraction allows ({most:g})"]
        )
    rows = {one.row for one in bad}
    return split.select([row for row in range(len(split)) if row not in rows]) if rows else split


def _try(images: Dataset, row: int) -> BadImage | None:
    try:
        open_image(images[row]["image"])
    except ImageError as error:
        return BadImage(row, str(error))
    return None
