"""Reading images beside the processor of transformers, and what batches of similar shape save.

python tests/benchmarks/reading_speed.py

Both read the same JPEG files and make 800 pixels of them, in turn, in one process on one thread: the processor decodes,
resizes and normalises, as the examples of transformers do; ours decodes and resizes to bytes, which a device
normalises. The last column counts that too, on this processor core. Ends with status 1 where the bar is missed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tables import Tables, parser_of
from transformers import DetrImageProcessor

from detr_ft.data.pipeline.dataset import TrainTransform, collate
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.pipeline.sampling import BatchSampler
from detr_ft.data.schema import detection_objects

BAR = 10
IMAGES, ROUNDS = 24, 5
# Width and height of a photograph in sets like COCO, and how often.
SHAPES = {(640, 480): 45, (640, 427): 20, (480, 640): 15, (427, 640): 8, (500, 375): 5, (640, 360): 4, (612, 612): 3}


def write_images(folder: Path) -> list[Path]:
    """JPEG files of 640 x 480 with something in them at every scale."""
    random = np.random.default_rng(0)
    files = []
    for index in range(IMAGES):
        octaves = [random.integers(0, 256, (15 * 2**k, 20 * 2**k, 3), dtype=np.uint8) for k in range(4)]
        layers = [
            np.asarray(Image.fromarray(one).resize((640, 480)), dtype=float) / 2**k for k, one in enumerate(octaves)
        ]
        files.append(folder / f"{index}.jpg")
        Image.fromarray((sum(layers) / 1.875).astype(np.uint8)).save(files[-1], quality=90)
    return files


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> int:
    torch.set_num_threads(1)
    tables = Tables(parser_of(__doc__).parse_args().json)
    processor = DetrImageProcessor()
    form = ImageFormat.of(processor)
    transform, random = TrainTransform(form), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        files = write_images(Path(folder))
        rows = [
            {
                "image": {"path": str(file), "bytes": None},
                "image_id": index,
                "width": 640,
                "height": 480,
                "objects": detection_objects([[10, 10, 50, 50]], [0]),
            }
            for index, file in enumerate(files)
        ]

        def stock() -> None:
            for file in files:
                with Image.open(file) as image:
                    processor(images=[image.convert("RGB")], return_tensors="pt")

        def ours() -> None:
            for row in rows:
                transform(row, 0, random, lambda position: row)  # noqa: B023 - called before the next row

        def whole() -> None:
            for row in rows:
                form.normalize(collate([transform(row, 0, random, lambda position: row)]))  # noqa: B023

        stock(), ours(), whole()
        runs = [(seconds(stock), seconds(ours), seconds(whole)) for _ in range(ROUNDS)]
    per_second = [IMAGES / statistics.median(one) for one in zip(*runs, strict=True)]
    ratio, ratio_whole = (statistics.median(run[0] / run[place] for run in runs) for place in (1, 2))
    tables.begin(
        {
            "images/s, one thread": "",
            "processor of transformers": ".0f",
            "ours, to bytes": ".0f",
            "times": ".1f",
            "bar": "",
            "normalised here too": ".0f",
            "times, so": ".1f",
        }
    )
    tables.row("640x480 JPEG to 1066x800", per_second[0], per_second[1], ratio, BAR, per_second[2], ratio_whole)
    add_padding(tables, form)
    return int(ratio < BAR)


def add_padding(tables: Tables, form: ImageFormat) -> None:
    """Add a table of the fraction of a batch's pixels that is image, in random batches and in batches of similar shape."""
    sizes = [size for size, many in SHAPES.items() for _ in range(many * 5)]
    shown = [form.resized(*size) for size in sizes]
    shapes = [width / height for width, height in sizes]
    tables.begin({"part of the pixels that is image": "", "random batches": ".2f", "batches of similar shape": ".2f"})
    for batch_size in (2, 8, 32):
        parts = [
            _useful(BatchSampler(len(sizes), batch_size, 0, aspect_ratios=given), shown) for given in (None, shapes)
        ]
        tables.row(f"batches of {batch_size}", *parts)


def _useful(batches: BatchSampler, shown: list[tuple[int, int]]) -> float:
    image = padded = 0
    for batch in batches.of_epoch(0):
        sizes = [shown[index] for index in batch]
        image += sum(width * height for width, height in sizes)
        padded += len(batch) * max(width for width, _ in sizes) * max(height for _, height in sizes)
    return image / padded


if __name__ == "__main__":
    sys.exit(main())
