"""Training steps and whole runs beside those of the stock example.   python tests/benchmarks/step_speed.py [--help]

DETR-ResNet-50 of random weights, its stem and first stage frozen in all; 640x480 JPEG files, seven objects each, resized as
the checkpoint's processor does. The stock loop is that of the examples of transformers: model, loss and processor as they
come, fused AdamW, clipping, the check of the loss for NaN; once as it is by default (fp32) and once by its best flags (bf16,
worker processes). Ours is `DetrTrainer`'s own step and feed. A step takes what the loader gives from pinned memory on; a run
goes from the files on. All are timed in turn, in rounds; ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from reading_speed import write_images
from stamp import stamp
from torch.utils.data import DataLoader
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

from detr_ft.criterion import detr_criterion
from detr_ft.data.images import open_image
from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.models import load_model, set_trainable
from detr_ft.training.display import PlainDisplay
from detr_ft.training.loop import DetrTrainer
from detr_ft.training.settings import TrainSettings

warnings.filterwarnings("ignore")
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
WORKERS = max(1, (os.cpu_count() or 2) - 1)
OBJECTS, CLASSES = 7, 80
ROOFLINE = 1619  # images/s of an H200 at 1066x800, convolutions with norm and activation fused; see the README beside


@dataclass
class Way:
    """One way to train: a step on a batch at hand, and what its loader gives, step after step."""

    name: str
    images: int
    step: Callable[[], object]
    run: Callable[[], Iterator[object]]
    per_second: list[float] = field(default_factory=list)
    from_files: list[float] = field(default_factory=list)
    busy: float | None = None
    waits: int | None = None
    memory: int | None = None


def rows(files: list[Path], number: int) -> Dataset:
    """So many rows in the schema, over the same files again and again."""
    generator = torch.Generator().manual_seed(0)
    columns: dict[str, list[Any]] = {name: [] for name in detection_features(["thing"])}
    for place in range(number):
        corners = torch.rand(OBJECTS, 2, generator=generator) * torch.tensor([500.0, 350.0])
        sides = 20 + 100 * torch.rand(OBJECTS, 2, generator=generator)
        labels = torch.randint(CLASSES, (OBJECTS,), generator=generator).tolist()
        row = {"image": {"path": str(files[place % len(files)]), "bytes": None}, "image_id": place, "width": 640}
        row |= {"height": 480, "objects": detection_objects(torch.hstack([corners, sides]).tolist(), labels)}
        for name, value in row.items():
            columns[name].append(value)
    return Dataset.from_dict(columns, features=detection_features([f"c{number}" for number in range(CLASSES)]))


def processor_of(edge: int) -> DetrImageProcessor:
    return DetrImageProcessor(size={"shortest_edge": edge, "longest_edge": round(edge * 1333 / 800)})


def model_of(arguments: argparse.Namespace) -> DetrForObjectDetection:
    torch.manual_seed(0)
    if arguments.embedded:
        model = load_model("embedded:small")[0]
        set_trainable(model, [])
        return model
    config = DetrConfig(backbone_config=ResNetConfig(out_features=["stage4"]), num_labels=CLASSES)
    model = DetrForObjectDetection(config)
    set_trainable(model, ["backbone.stem", "backbone.stage1"])
    return model


def stock(arguments: argparse.Namespace, split: Dataset, bf16: bool, workers: int) -> Way:
    """The loop of the example."""
    model, processor = model_of(arguments).to(DEVICE).train(), processor_of(arguments.edge)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, weight_decay=1e-4, fused=True)
    classes = model.config.num_labels

    def read(batch: list[dict[str, Any]]) -> dict[str, Any]:
        annotations = [
            {
                "image_id": row["image_id"],
                "annotations": [
                    {"bbox": box, "category_id": label % classes, "area": box[2] * box[3], "iscrowd": 0}
                    for box, label in zip(row["objects"]["bbox"], row["objects"]["category"], strict=True)
                ],
            }
            for row in batch
        ]
        images = [open_image(row["image"]["path"]).convert("RGB") for row in batch]
        return dict(processor(images=images, annotations=annotations, return_tensors="pt"))

    def step(batch: dict[str, Any]) -> None:
        moved = {
            name: value.to(DEVICE) if isinstance(value, torch.Tensor) else [{k: v.to(DEVICE) for k, v in one.items()} for one in value]
            for name, value in batch.items()
        }  # fmt: skip
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            loss = model(**moved).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.1)
        optimizer.step()
        optimizer.zero_grad()
        if torch.isnan(loss) or torch.isinf(loss):
            raise ValueError("the loss is not finite")

    def loader(workers: int) -> DataLoader[Any]:
        return DataLoader(
            split.with_transform(lambda columns: columns), batch_size=arguments.images, num_workers=workers,
            collate_fn=read, pin_memory=GPU, shuffle=True,
        )  # fmt: skip

    batch = next(iter(loader(0)))
    name = f"stock, {'bf16' if bf16 else 'fp32'}, {workers or 'no'} workers"
    return Way(name, arguments.images, lambda: step(batch), lambda: (step(one) for one in loader(workers)))


def ours(arguments: argparse.Namespace, split: Dataset, folder: Path, how: dict[str, bool], workers: int) -> Way:
    """The step and the feed of `DetrTrainer`."""
    model, processor = model_of(arguments), processor_of(arguments.edge)
    settings = TrainSettings(
        output_dir=str(folder), dataloader_num_workers=workers, learning_rate=1e-6,
        per_device_train_batch_size=arguments.images, num_train_epochs=1, **how,
    )  # fmt: skip
    if model.config.num_labels != CLASSES:
        split = split.map(lambda row: {"objects": row["objects"] | {"category": [one % model.config.num_labels for one in row["objects"]["category"]]}})  # fmt: skip
    trainer = DetrTrainer(
        model, detr_criterion(), split, None, settings, processor=processor, display=PlainDisplay(lambda line: None)
    )
    trainer._begin(0)
    numbers = iter(range(1, 10**9))

    def step(work: Any) -> None:
        trainer.held.log.since.add(work.images, trainer.stepper.take(work, min(next(numbers), trainer.steps)))

    work = next(trainer.feed.steps())
    name = ", ".join(["ours", *(f"{name}={value}".lower() for name, value in how.items())])
    return Way(name, arguments.images, lambda: step(work), lambda: (step(one) for one in trainer.feed.steps()))


def settle() -> None:
    if GPU:
        torch.cuda.synchronize()


def speed(way: Way, steps: int) -> float:
    """Images a second of so many steps."""
    settle()
    began = time.perf_counter()
    for _ in range(steps):
        way.step()
    settle()
    return steps * way.images / (time.perf_counter() - began)


def speed_from_files(way: Way, steps: int) -> tuple[float, float | None]:
    """Images a second from the files on, once the loader has filled up, and the share of that time in which the GPU worked."""
    steps_of, used, going = way.run(), [], threading.Event()
    for _ in range(3):
        next(steps_of)
    settle()

    def sample() -> None:
        while not going.wait(0.2):
            used.append(torch.cuda.utilization())

    thread = threading.Thread(target=sample)
    if GPU:
        thread.start()
    began = time.perf_counter()
    for _ in range(steps):
        next(steps_of)
    settle()
    took = time.perf_counter() - began
    going.set()
    if GPU:
        thread.join()
    return steps * way.images / took, statistics.mean(used) / 100 if used else None


def count_waits(way: Way) -> int:
    """How often a step waits for the GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        way.step()
        torch.cuda.set_sync_debug_mode("default")
    return len([one for one in caught if "synchroniz" in str(one.message)])


def measure(ways: list[Way], arguments: argparse.Namespace) -> None:
    for way in ways:
        began = time.perf_counter()
        for _ in range(arguments.warm):
            way.step()
        settle()
        print(f"{way.name}: warm after {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
        if GPU:
            way.waits = count_waits(way)
            settle()
            idle = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            way.step()
            settle()
            way.memory = (torch.cuda.max_memory_allocated() - idle) // 2**20
    for _ in range(arguments.rounds):
        for way in ways:
            way.per_second.append(speed(way, arguments.steps))
    for way in ways if arguments.files else []:
        told, way.busy = speed_from_files(way, arguments.files)
        way.from_files.append(told)


def profile(way: Way) -> str:
    """The kernels of a step that take most."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    with recorded(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if GPU else [])]) as told:
        way.step()
        settle()
    table: str = told.key_averages().table(
        sort_by="self_cuda_time_total" if GPU else "self_cpu_time_total", row_limit=45, max_name_column_width=70
    )
    return f"{way.name}\n{table}\n"


def table(ways: list[Way], arguments: argparse.Namespace) -> str:
    first = ways[0]
    lines = [
        f"| batches of {arguments.images} | step, ms | images/s | times {first.name} | waits | MiB | from files, images/s | GPU busy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way in ways:
        middle = statistics.median(way.per_second)
        ratio = statistics.median(a / b for a, b in zip(way.per_second, first.per_second, strict=True))
        files = f"{way.from_files[0]:.0f}" if way.from_files else "–"
        busy = "–" if way.busy is None else f"{way.busy:.0%}"
        lines.append(
            f"| {way.name} | {1000 * way.images / middle:.1f} | {middle:.1f} | {ratio:.2f} | "
            f"{'–' if way.waits is None else way.waits} | {'–' if way.memory is None else way.memory} | {files} | {busy} |"
        )
    if GPU and arguments.edge == 800 and not arguments.embedded:
        best = max(statistics.median(way.per_second) for way in ways)
        lines.append(f"\nThe fastest is at {best / ROOFLINE:.0%} of the roofline of {ROOFLINE} images/s of an H200.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=800 if GPU else 400, help="the shorter side, in pixels")
    parser.add_argument("--images", type=int, default=8 if GPU else 2, help="in a batch")
    parser.add_argument("--steps", type=int, default=10 if GPU else 2, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm", type=int, default=4)
    parser.add_argument("--files", type=int, default=0, help="steps from the files on; 0: not measured")
    parser.add_argument("--embedded", action="store_true", help="the embedded model, all of it trained")
    parser.add_argument("--compiled", action="store_true", help="also ours with train.torch_compile=true")
    parser.add_argument("--profile", type=Path, help="write the kernels of each way's step to this file")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = rows(write_images(folder), max(arguments.images, (arguments.files + 12) * arguments.images))
        ways = [stock(arguments, split, False, 0)]
        ways.append(stock(arguments, split, True, WORKERS if GPU else 0))
        kinds = [{"bf16": True, "cuda_graphs": False}] if GPU else [{"bf16": False}]
        kinds += [{"bf16": True}, *([{"bf16": True, "torch_compile": True}] if arguments.compiled else [])]
        ways += [ours(arguments, split, folder / str(at), how, WORKERS if GPU else 0) for at, how in enumerate(kinds)]
        measure(ways, arguments)
        print(f"{stamp()}\n\n{table(ways, arguments)}", flush=True)
        if arguments.json:
            figures = [{k: v for k, v in vars(way).items() if k not in ("step", "run")} for way in ways]
            arguments.json.write_text(json.dumps({"machine": stamp(), "ways": figures}, indent=2) + "\n")
        if arguments.profile:
            arguments.profile.write_text("\n".join(map(profile, ways)))


if __name__ == "__main__":
    main()
