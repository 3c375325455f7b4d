"""Cost of processes, images, queries and objects.   python tests/benchmarks/scaling.py [--processes 2 4] [--device cuda]

Processes: images a second of `detr-ft train` on generated scenes with the embedded checkpoint, as its log has them, by
`torchrun` with the same step in all; on CPUs each process has one thread. As many runs of one side by side, which share
nothing but the machine, show what of the loss is the machine's. Images, their size, queries, objects: milliseconds of a
training step of the embedded model, taken apart into the model (forward and backward) and the criterion (matching,
losses, their gradient).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from clocks import seconds
from tables import Tables, parser_of
from transformers import DetrForObjectDetection

from detr_ft.criterion import detr_criterion
from detr_ft.models.load import load_model
from detr_ft.structures import Predictions, Targets

_RUNS = 15
RECIPE = """
model: {{checkpoint: embedded:small}}
data: {{source: "generated:workshop?train=960&validation=8"}}
train:
  output_dir: {out}
  num_train_epochs: 2
  per_device_train_batch_size: {size}
  eval_epochs: 0
  logging_steps: 10
"""


def images_a_second(processes: int, device: str, apart: int = 1) -> float:
    """Return the images per second of `apart` runs at the same time, summed; each has `processes` and the same step.

    A median is of the rows of a log; the first, in which all is warmed up, are left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            _start(Path(folder) / str(number), processes, 16 // processes // apart, device) for number in range(apart)
        ]
        failed = [run.wait() for run in runs if run.wait()]
        if failed:
            raise SystemExit(f"a run ended with status {failed[0]}")
        return sum(_median(Path(folder) / str(number)) for number in range(apart))


def _start(folder: Path, processes: int, size: int, device: str) -> subprocess.Popen[bytes]:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(RECIPE.format(out=folder / "run", size=size))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, "-W", "ignore", *launcher, "-m", "detr_ft", "train", str(folder / "recipe.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def _median(folder: Path) -> float:
    rows = [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]
    return median(row["images_per_second"] for row in rows[2:] if "loss" in row)


def milliseconds(action: Callable[[], object]) -> float:
    """The median of some runs, after two that don't count."""
    measured = [seconds(action) for _ in range(_RUNS + 2)]
    return 1000 * median(measured[2:])


def with_queries(model: DetrForObjectDetection, queries: int) -> DetrForObjectDetection:
    config = model.config
    config.num_queries = queries
    return DetrForObjectDetection(config).train()


def step(device: torch.device, images: int, edge: int, queries: int, objects: int) -> tuple[float, float]:
    """Milliseconds of the model and of the criterion."""
    torch.manual_seed(0)
    model = with_queries(load_model("embedded:small")[0], queries).to(device)
    pixels = torch.randn(images, 3, edge, edge, device=device)
    boxes = torch.cat([torch.rand(objects, 2) * 0.4 + 0.3, torch.rand(objects, 2) * 0.2 + 0.05], 1)
    labels = [{"class_labels": torch.randint(8, (objects,)), "boxes": boxes} for _ in range(images)]
    targets, criterion = Targets.from_labels(labels, device), detr_criterion()
    layers = model.config.decoder_layers

    def forward_and_backward() -> None:
        output = model(pixel_values=pixels)
        (output.logits.sum() + output.pred_boxes.sum()).backward()

    logits = torch.randn(layers, images, queries, 9, device=device, requires_grad=True)
    places = torch.rand(layers, images, queries, 4, device=device).mul(0.4).add(0.1).requires_grad_()

    def score() -> None:
        criterion(Predictions(logits, places), targets)[0].backward()

    return milliseconds(forward_and_backward), milliseconds(score)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--processes", type=int, nargs="*", default=[2])
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tables = Tables(arguments.json)
    device = torch.device(arguments.device)
    one = images_a_second(1, device.type)
    tables.begin(
        {
            "processes": "",
            "images/s": ".0f",
            "of as many times one": ".2f",
            "of as many runs of one side by side": ".2f",
        }
    )
    for number in arguments.processes:
        rate, apart = images_a_second(number, device.type), images_a_second(1, device.type, number)
        tables.row(number, rate, rate / (number * one), rate / apart)
    tables.begin(
        {
            "images": "",
            "pixels a side": "",
            "queries": "",
            "objects an image": "",
            "model, ms": ".1f",
            "criterion, ms": ".1f",
        }
    )
    cases = [(images, 128, 100, 10) for images in (1, 4, 16)] + [(4, edge, 100, 10) for edge in (64, 256, 512)]
    cases += [(4, 128, queries, 10) for queries in (25, 300, 900)] + [(4, 128, 100, objects) for objects in (1, 30, 90)]
    for case in cases:
        tables.row(*case, *step(device, *case))


if __name__ == "__main__":
    main()
