"""Speed of the doctor in images per minute: 640x480 JPEGs with eight boxes each.

Writes them to a temporary folder, examines them three times, and prints the median; ends with status 1 below the bar.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from PIL import Image
from tables import Tables, parser_of

from detr_ft.data.doctor import examine
from detr_ft.data.schema import detection_features, detection_objects

IMAGES, SIZE, BOXES, RUNS, BAR = 600, (640, 480), 8, 3, 2000


def write_images(folder: Path) -> Dataset:
    """Soft scenes with grain, about as many bytes as a camera's."""
    random = np.random.default_rng(0)
    columns: dict[str, list[object]] = {key: [] for key in detection_features(["thing"])}
    for number in range(IMAGES):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
            SIZE, Image.Resampling.BICUBIC
        )
        grain = random.normal(0, 8, (SIZE[1], SIZE[0], 1))
        path = folder / f"{number:04}.jpg"
        Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(path, quality=90)
        corners, sides = random.uniform(0, 300, (BOXES, 2)), random.uniform(20, 150, (BOXES, 2))
        row = {"image": {"path": str(path), "bytes": None}, "image_id": number, "width": SIZE[0], "height": SIZE[1]}
        row["objects"] = detection_objects(np.hstack([corners, sides]).tolist(), [0] * BOXES)
        for key, value in row.items():
            columns[key].append(value)
    return Dataset.from_dict(columns, features=detection_features(["thing"]))


def main() -> int:
    tables = Tables(parser_of(__doc__).parse_args().json)
    with tempfile.TemporaryDirectory() as name:
        data = DatasetDict({"train": write_images(Path(name))})
        mean = sum(path.stat().st_size for path in Path(name).iterdir()) / IMAGES / 1024
        speeds = []
        for _ in range(RUNS):
            start = time.perf_counter()
            examine(data)
            speeds.append(60 * IMAGES / (time.perf_counter() - start))
    speed = statistics.median(speeds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tables.begin(
        {
            "JPEGs of 640x480": "",
            "KiB each": ".0f",
            "images a minute, median": ",.0f",
            "bar": ",",
            "slowest": ",.0f",
            "fastest": ",.0f",
            "peak of the process, MiB": ".0f",
        }
    )
    tables.row(IMAGES, mean, speed, BAR, min(speeds), max(speeds), peak)
    return 0 if speed >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
