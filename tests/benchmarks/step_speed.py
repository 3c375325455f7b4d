"""Training steps and whole runs beside those of the stock example.   python tests/benchmarks/step_speed.py [--help]

DETR-ResNet-50 of random weights, its stem and first stage frozen in all; 640x480 JPEG files, seven objects each,
resized as the checkpoint's processor does. The stock loop is that of the examples of transformers: model, loss and
processor as they come, fused AdamW, clipping, the check of the loss for NaN; once as it is by default (fp32) and once
by its best flags (bf16, worker processes). Ours is `DetrTrainer`'s own step and feed. A step takes what the loader
gives from pinned memory on; a run goes from the files on. All are timed in turn, in rounds; ratios are medians over the
rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from clocks import seconds, settle, waits
from reading_speed import write_images
from tables import Tables, parser_of
from torch.utils.flop_counter import FlopCounterMode
from training_loops import GPU, WORKERS, Way, ours, rows, stock

ROOFLINE = 1619  # images/s of an H200 at 1066x800, convolutions with norm and activation fused; see the README beside


def speed(way: Way, steps: int) -> float:
    """Images a second of so many steps."""
    return steps * way.images / seconds(lambda: [way.step() for _ in range(steps)])


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


def measure(ways: list[Way], arguments: argparse.Namespace) -> None:
    for way in ways:
        began = time.perf_counter()
        for _ in range(arguments.warm):
            way.step()
        settle()
        print(f"{way.name}: warm after {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
        if GPU:
            way.waits = waits(way.step)
            settle()
            idle = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            way.step()
            settle()
            way.memory = (torch.cuda.max_memory_allocated() - idle) // 2**20
    for _ in range(arguments.rounds):
        for way in ways:
            way.per_second.append(speed(way, arguments.steps))
    for way in ways:
        way.milliseconds = by_part(way, arguments.steps)
    for way in ways if arguments.files else []:
        output, way.busy = speed_from_files(way, arguments.files)
        way.from_files.append(output)


def profile(way: Way) -> str:
    """The kernels of a step that take most."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    with recorded(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if GPU else [])]) as output:
        way.step()
        settle()
    table: str = output.key_averages().table(
        sort_by="self_cuda_time_total" if GPU else "self_cpu_time_total", row_limit=45, max_name_column_width=70
    )
    return f"{way.name}\n{table}\n"


@contextmanager
def timed(way: Way, spent: dict[str, float]) -> Iterator[None]:
    """Add up what each part of the step takes in here, in milliseconds; a GPU is waited for at the ends of each."""
    was = {name: (owner, method, getattr(owner, method)) for name, (owner, method) in way.parts.items()}
    for name, (owner, method, called) in was.items():

        def clocked(*given: Any, _name: str = name, _called: Any = called, **named: Any) -> Any:
            settle()
            began = time.perf_counter()
            answer = _called(*given, **named)
            settle()
            spent[_name] += 1000 * (time.perf_counter() - began)
            return answer

        setattr(owner, method, clocked)
    try:
        yield
    finally:
        for owner, method, called in was.values():
            setattr(owner, method, called)


def by_part(way: Way, steps: int) -> dict[str, float]:
    """Milliseconds of a step by part, the rest being moving, normalising, the forward pass and clipping."""
    spent = dict.fromkeys(way.parts, 0.0)
    settle()
    began = time.perf_counter()
    with timed(way, spent):
        for _ in range(steps):
            way.step()
        settle()
    whole = 1000 * (time.perf_counter() - began)
    return {name: value / steps for name, value in {**spent, "the rest": whole - sum(spent.values())}.items()}


def least(way: Way) -> str:
    """Return the time of a step on this CPU if all its arithmetic were as fast as a large matrix product."""
    with FlopCounterMode(display=False) as counter:
        way.step()
    one = torch.randn(1024, 1024)
    measured = []
    for _ in range(30):
        began = time.perf_counter()
        one @ one
        measured.append(time.perf_counter() - began)
    done, rate = counter.get_total_flops(), 2 * 1024**3 / statistics.median(measured)
    return f"{way.name}: {done / 1e9:.0f} GFLOP a step, {rate / 1e9:.0f} GFLOP/s in a matrix product: {1000 * done / rate:.0f} ms at least"


def print_tables(ways: list[Way], arguments: argparse.Namespace) -> None:
    tables, first = Tables(arguments.json), ways[0]
    columns = {"step, ms": ".1f", "images/s": ".1f", f"times {first.name}": ".2f", "waits": "", "MiB": ""}
    tables.begin(
        {
            f"batches of {arguments.images}": "",
            **columns,
            "from files, images/s": ".1f",
            "times": ".2f",
            "GPU busy": ".0%",
        }
    )
    for way in ways:
        middle = statistics.median(way.per_second)
        ratio = statistics.median(a / b for a, b in zip(way.per_second, first.per_second, strict=True))
        files = way.from_files[0] if way.from_files else None
        times = files / first.from_files[0] if files else None
        tables.row(way.name, 1000 * way.images / middle, middle, ratio, way.waits, way.memory, files, times, way.busy)
    tables.begin({"a step by part, ms": "", **dict.fromkeys(first.milliseconds, ".1f")})
    for way in ways:
        tables.row(way.name, *way.milliseconds.values())
    if not GPU:
        tables.note("\n".join(least(way) for way in (first, ways[2])))
    if GPU and arguments.edge == 800 and not arguments.embedded:
        best = max(statistics.median(way.per_second) for way in ways)
        tables.note(f"The fastest is at {best / ROOFLINE:.0%} of the roofline of {ROOFLINE} images/s of an H200.")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--edge", type=int, default=800 if GPU else 400, help="the shorter side, in pixels")
    parser.add_argument("--images", type=int, default=8 if GPU else 2, help="in a batch")
    parser.add_argument("--steps", type=int, default=10 if GPU else 2, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm", type=int, default=4)
    parser.add_argument("--files", type=int, default=0, help="steps from the files on; 0: not measured")
    parser.add_argument("--embedded", action="store_true", help="the embedded model, all of it trained")
    parser.add_argument("--compiled", action="store_true", help="also ours with train.torch_compile=true")
    parser.add_argument("--profile", type=Path, help="write the kernels of each way's step to this file")
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
        print_tables(ways, arguments)
        if arguments.profile:
            arguments.profile.write_text("\n".join(map(profile, ways)))


if __name__ == "__main__":
    main()
