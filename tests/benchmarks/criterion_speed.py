"""The default criterion beside the stock loss of transformers, in one process.   python tests/benchmarks/criterion_speed.py

Forward and backward of both on the same inputs, in turn, on one thread; the ratio of each pair of runs, and of those
the median. The loss alone is measured: it is a part of a training step, so a ratio here is no ratio of training speed.
The bars are those of SciPy's solver; where lapx is installed, a column shows ours with it. `--short` leaves out the
cases that take the stock loss minutes. Ends with status 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tables import Tables, parser_of
from transformers import DetrConfig
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

from detr_ft.criterion import HungarianMatcher, detr_criterion
from detr_ft.criterion.assignment import Plan, by_scipy, lapx_is_equal
from detr_ft.structures import Predictions, Targets

LAYERS, CLASSES = 6, 91
CONFIG = DetrConfig(auxiliary_loss=True, num_labels=CLASSES, backbone_config={"model_type": "resnet"})
FASTEST = detr_criterion()


@dataclass(frozen=True)
class Case:
    """B images with T objects each, Q queries, and how many times faster we promise to be."""

    images: int
    queries: int
    objects: int
    bar: float
    runs: int

    def __str__(self) -> str:
        return f"L{LAYERS} B{self.images} Q{self.queries} K{CLASSES} T{self.objects}"


class ScipyMatcher(HungarianMatcher):
    """SciPy's solver, whatever else is installed."""

    @property
    def plan(self) -> Plan:
        return Plan(tuple(self.costs), by_scipy)


CRITERION = replace(FASTEST, matcher=ScipyMatcher())
CASES = [Case(8, 100, 7, 5, 101), Case(8, 100, 50, 15, 31), Case(32, 300, 7, 11, 9), Case(32, 300, 50, 75, 3)]
MEMORY_CASE, MEMORY_BAR = Case(8, 300, 300, 9, 1), 9


def inputs(case: Case) -> tuple[torch.Tensor, torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Random logits and boxes that take a gradient, and the targets as transformers takes them."""
    torch.manual_seed(0)
    shape = (LAYERS, case.images, case.queries)
    logits = torch.randn(*shape, CLASSES + 1, requires_grad=True)
    boxes = _boxes(*shape).requires_grad_()
    labels = [
        {"class_labels": torch.randint(CLASSES, (case.objects,)), "boxes": _boxes(case.objects)}
        for _ in range(case.images)
    ]
    return logits, boxes, labels


def _boxes(*shape: int) -> torch.Tensor:
    return torch.cat([0.3 + 0.4 * torch.rand(*shape, 2), 0.02 + 0.5 * torch.rand(*shape, 2)], -1)


def stock(logits: torch.Tensor, boxes: torch.Tensor, labels: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """The loss that a stock model computes."""
    loss, _, _ = ForObjectDetectionLoss(logits[-1], labels, logits.device, boxes[-1], CONFIG, logits, boxes)
    return loss


def ours(logits: torch.Tensor, boxes: torch.Tensor, labels: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """The default criterion by SciPy, from the same inputs."""
    return CRITERION(Predictions(logits, boxes), Targets.from_labels(labels, logits.device))[0]


def fastest(logits: torch.Tensor, boxes: torch.Tensor, labels: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """The default criterion by the fastest solver that is installed."""
    return FASTEST(Predictions(logits, boxes), Targets.from_labels(labels, logits.device))[0]


def seconds(loss: Callable[..., torch.Tensor], case: Case) -> Callable[[], float]:
    """A function that takes one forward and backward and returns its seconds."""
    logits, boxes, labels = inputs(case)

    def once() -> float:
        logits.grad = boxes.grad = None
        started = time.perf_counter()
        loss(logits, boxes, labels).backward()
        return time.perf_counter() - started

    return once


def compare(case: Case, mine: Callable[..., torch.Tensor] = ours) -> tuple[float, float, float]:
    """Median milliseconds of stock and ours, and the median of their ratios."""
    a, b = seconds(stock, case), seconds(mine, case)
    b(), a(), b()
    pairs = [(a(), b()) for _ in range(case.runs)]
    ratio = statistics.median(first / second for first, second in pairs)
    return statistics.median(x for x, _ in pairs) * 1e3, statistics.median(y for _, y in pairs) * 1e3, ratio


def peak_memory(which: str) -> float:
    """MiB that one forward and backward adds to what a fresh process holds, at its peak (Linux)."""
    done = subprocess.run([sys.executable, __file__, "--memory", which], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _measure_memory(which: str) -> None:
    loss = {"stock": stock, "ours": ours}[which]
    loss(*inputs(Case(1, 10, 2, 0, 1))).backward()  # what the libraries themselves take
    logits, boxes, labels = inputs(MEMORY_CASE)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _mebibytes("VmRSS")
    loss(logits, boxes, labels).backward()
    print(_mebibytes("VmHWM") - before)


def _mebibytes(name: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


def _like_a_training_process() -> None:
    """Let the allocator keep what is freed, as it does once a model has freed larger buffers than the loss has."""
    torch.empty(28 * 2**20 // 4)


def main() -> int:
    """Print the table; answer 1 where a bar is missed."""
    parser = parser_of(__doc__)
    parser.add_argument("--memory", choices=["stock", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--short", action="store_true", help="leave out the cases of 32 images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        _measure_memory(arguments.memory)
        return 0
    tables = Tables(arguments.json)
    _like_a_training_process()
    tables.begin(
        {
            "case": "",
            "stock, ms": ".1f",
            "ours, ms": ".1f",
            "times faster": ".1f",
            "bar": "g",
            "with lapx": ".1f",
            "runs": "",
        }
    )
    missed = False
    for case in [case for case in CASES if case.images == 8 or not arguments.short]:
        before, after, ratio = compare(case)
        missed |= ratio < case.bar
        with_lapx = compare(case, fastest)[2] if lapx_is_equal() else None
        tables.row(str(case), before, after, ratio, case.bar, with_lapx, case.runs)
    before, after = peak_memory("stock"), peak_memory("ours")
    missed |= before / after < MEMORY_BAR
    tables.begin({"peak memory": "", "stock, MiB": ".0f", "ours, MiB": ".0f", "times less": ".1f", "bar": "g"})
    tables.row(str(MEMORY_CASE), before, after, before / after, MEMORY_BAR)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
