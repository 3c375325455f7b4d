"""The doctor's one pass over the files of a data set, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from datasets import DatasetDict

from detr_ft.data.integrity.scan import ScannedImage, scan_images


@dataclass(frozen=True)
class Looks:
    """What the files of each split told, row by row, and the seconds that it took."""

    splits: Mapping[str, list[ScannedImage]]
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images read and decoded in a second."""
        return sum(map(len, self.splits.values())) / max(self.seconds, 1e-9)


def look(data: DatasetDict) -> Looks:
    """Read and decode every image of every split, on all cores, with a progress bar."""
    start = time.perf_counter()
    splits = {split: scan_images(rows, f"Examining {split}") for split, rows in data.items()}
    return Looks(splits, time.perf_counter() - start)
