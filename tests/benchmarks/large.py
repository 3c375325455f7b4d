"""Extrapolation to a run of ten million images and 64 GPUs.   python tests/benchmarks/large.py [--images 1000000]

Measured: the table of a data set on disk and what planning an epoch takes, for so many images; writing and reading a
checkpoint of DETR-ResNet-50 with optimizer and averaged weights. From the README beside: images a second of an H200 and
of a reading core, bytes of a JPEG.
"""

from __future__ import annotations

import math
import pickle
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from datasets import Dataset, Features, Image, Value
from reading_speed import write_images
from safetensors.torch import load_file, save
from tables import Tables, parser_of
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

from detr_ft.data.integrity.scan import scan_images
from detr_ft.data.pipeline.sampling import BatchSampler, aspect_ratios
from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.training.checkpoint.store import Checkpoints

IMAGES, GPUS, NODE, CORES = 10_000_000, 64, 8, 16
# From the README beside: images a second of an H200 in bf16 without CUDA graphs, which are for one process, and of a core that
# reads; bytes of a JPEG.
STEP, READ, JPEG = 295.8, 278, 124 * 1024
BATCH, OBJECTS, CLASSES = 32, 7, 80


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    output = work()
    return time.perf_counter() - began, output


def written(folder: Path, number: int) -> tuple[Dataset, int]:
    """A table of so many rows in the schema, on disk, and its bytes."""
    random = np.random.default_rng(0)
    features = detection_features([f"c{label}" for label in range(CLASSES)])

    def some(start: int, stop: int) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {name: [] for name in features}
        for place in range(start, stop):
            boxes, labels = random.uniform(1, 300, (OBJECTS, 4)).tolist(), random.integers(0, CLASSES, OBJECTS).tolist()
            row = {
                "image": {"path": f"/data/train/{place // 1000:05}/{place:09}.jpg", "bytes": None},
                "image_id": place,
            }
            row |= {"width": 640, "height": int(random.integers(360, 640)), "objects": detection_objects(boxes, labels)}
            for name, value in row.items():
                columns[name].append(value)
        return columns

    def every() -> Iterator[dict[str, Any]]:
        for start in range(0, number, 10_000):
            part = some(start, min(start + 10_000, number))
            for at in range(len(part["image_id"])):
                yield {name: values[at] for name, values in part.items()}

    table = Dataset.from_generator(every, features=features, cache_dir=str(folder))
    return table, sum(Path(one["filename"]).stat().st_size for one in table.cache_files)


def checkpoint() -> dict[str, torch.Tensor]:
    """Tensors of the size of a run's state: weights, averaged weights, and both moments."""
    model = DetrForObjectDetection(
        DetrConfig(backbone_config=ResNetConfig(out_features=["stage4"]), num_labels=CLASSES)
    )
    state = model.state_dict()
    return {
        f"{kind}.{name}": one.float().clone() for kind in ("weights", "ema", "m", "v") for name, one in state.items()
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    arguments = parser.parse_args()
    number, tables = arguments.images, Tables(arguments.json)
    with tempfile.TemporaryDirectory() as name:
        table, size = written(Path(name), number)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        shapes_seconds, shapes = timed(lambda: aspect_ratios(table))
        batches = BatchSampler(number, BATCH * GPUS, seed=0, aspect_ratios=shapes)
        plan_seconds, _ = timed(lambda: batches.of_epoch(0))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        tensors = checkpoint()
        folder = Checkpoints(Path(name) / "checkpoints", 1)
        write_seconds, at = timed(lambda: folder.save(1, {"state.safetensors": save(tensors)}))
        read_seconds, _ = timed(lambda: [one.clone() for one in load_file(at / "state.safetensors").values()])
        look_seconds, look_size = seconds_of_scans(Path(name))
        counts_seconds = seconds_of_counts(name)
        weight = sum(one.numel() * 4 for one in tensors.values())
    times, speed = IMAGES / number, GPUS * STEP
    gradient = weight / 4
    step_seconds = BATCH / STEP
    tables.begin({"of": "", "measured": "", f"of {IMAGES // 10**6} million images on {GPUS} GPUs": ""})
    tables.row(
        f"table of the images, {OBJECTS} objects each",
        f"{size / 2**30:.2f} GiB for {number:,}",
        f"{times * size / 2**30:.1f} GiB on a disk of each machine, mapped",
    )
    cores = GPUS * CORES
    tables.row(
        "a look at every file, at the start, shared by the processes",
        f"{1 / look_seconds:.0f} images/s of a core, {look_size:.0f} bytes of each",
        f"{IMAGES * look_seconds / cores / 60:.1f} minutes on {cores:,} cores, {IMAGES * look_size / 2**30:.1f} GiB in each process",
    )
    tables.row("shapes of all images, at the start", f"{shapes_seconds:.1f} s", f"{times * shapes_seconds:.0f} s")
    tables.row(
        "the plan of an epoch, in each process",
        f"{plan_seconds:.1f} s, {grown:.0f} MiB",
        f"{times * plan_seconds:.0f} s, {times * grown / 1024:.1f} GiB",
    )
    tables.row(
        f"steps, {BATCH} images a GPU",
        f"{STEP} images/s of a GPU",
        f"{speed:,.0f} images/s: {IMAGES / speed / 60:.1f} minutes an epoch, {math.ceil(IMAGES / (BATCH * GPUS)):,} steps",
    )
    tables.row(
        "reading", f"{READ} images/s of a core", f"{speed / READ:.0f} cores busy, {speed / READ / GPUS:.1f} a GPU"
    )
    tables.row(
        "storage",
        f"{JPEG // 1024} KiB an image",
        f"{IMAGES * JPEG / 2**40:.1f} TiB, {speed * JPEG / 2**30:.1f} GiB/s, {speed:,.0f} files a second",
    )
    tables.row(
        f"gradients among {GPUS} GPUs",
        f"{gradient / 2**20:.0f} MiB, fp32",
        f"{2 * gradient * (GPUS - 1) / GPUS / step_seconds / 1e9:.1f} GB/s in and out of a GPU, and of a machine of {NODE}, were nothing hidden",
    )
    tables.row(
        "what a step holds, for exact sums",
        f"{1000 * counts_seconds:.2f} ms for {4 * CLASSES} bytes, 2 processes of one machine",
        f"{counts_seconds / step_seconds:.2%} of a step, and what the network adds to a message",
    )
    tables.row(
        "a checkpoint",
        f"{weight / 2**20:.0f} MiB: {write_seconds:.1f} s to write, {read_seconds:.1f} s to read",
        f"the same: one process writes, all read; {write_seconds * GPUS / 60:.1f} GPU minutes each",
    )


def seconds_of_scans(folder: Path, number: int = 240) -> tuple[float, float]:
    """Return the seconds of a core to scan a file, and the bytes of the result, as processes send it to each other."""
    files = write_images(folder)
    images = [{"path": str(files[place % len(files)]), "bytes": None} for place in range(number)]
    rows = Dataset.from_dict(
        {"image": images, "image_id": range(number)},
        features=Features(image=Image(decode=False), image_id=Value("int64")),
    )
    began = time.process_time()
    scans = scan_images(rows, "Looking")
    return (time.process_time() - began) / number, len(pickle.dumps(scans)) / number


def counts(process: int, folder: str, answer: Any) -> None:
    """Sum what a step holds over two processes, as every step does, and answer the median seconds."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=process, world_size=2)
    stored = torch.ones(CLASSES)
    measured = [timed(lambda: distributed.all_reduce(stored))[0] for _ in range(300)]
    if process == 0:
        answer.put(statistics.median(measured[100:]))
    distributed.destroy_process_group()


def seconds_of_counts(folder: str) -> float:
    answer = multiprocessing.get_context("spawn").SimpleQueue()
    multiprocessing.spawn(counts, (folder, answer), nprocs=2)
    output: float = answer.get()
    return output


if __name__ == "__main__":
    main()
