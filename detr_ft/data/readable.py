"""Whether every image can be decoded, found out before training rather than in its third hour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset

from detr_ft.data.images import ImageError, open_image
from detr_ft.data.parallel import map_rows
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
    images = split.with_format(None).select_columns(["image"]).select(mine)
    reasons = zip(mine, map_rows(_why_not, images, "Looking at every image"), strict=True)
    return sorted(gather_object([BadImage(row, why) for row, why in reasons if why]), key=lambda bad: bad.row)


def without_bad_images(split: Dataset, bad: list[BadImage], most: float) -> Dataset:
    """The split without its bad images. Raises UserError where they are more than the fraction `most` of it."""
    if len(bad) > most * len(split):
        raise UserError(
            [one.why for one in bad[:10]]
            + [f"{len(bad)} of {len(split)} images can't be read, more than data.max_bad_fraction allows ({most:g})"]
        )
    rows = {one.row for one in bad}
    return split.select([row for row in range(len(split)) if row not in rows]) if rows else split


def _why_not(row: dict[str, Any]) -> str | None:
    try:
        open_image(row["image"])
    except ImageError as error:
        return str(error)
    return None
