"""2,000 steps on real data: does memory grow, and does a run that is killed five times end where one left alone does?

    python tests/benchmarks/soak.py voc:PATH/TO/bccd_voc OUT

One run is watched (resident memory and open files of it and its workers), another is ended by SIGKILL five times at
steps drawn beforehand, and resumed. Status 1 where weights or log differ by a bit, or where memory or files grow.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
import torch
from safetensors.torch import load_file
from tables import Tables, parser_of

_STEPS, _KILLS = 2000, 5
_GROWTH = 0.02  # by which memory may be above that of the fourth eighth in the last
RECIPE = """
model: {{checkpoint: embedded:small}}
data: {{source: "{source}", longest_edge: 128, augment: light, validation_fraction: 0.1}}
train:
  output_dir: {out}
  num_train_epochs: {epochs}
  per_device_train_batch_size: 4
  dataloader_num_workers: 1
  learning_rate: 1.0e-4
  warmup_steps: 100
  ema_decay: 0.99
  eval_epochs: 4
  save_steps: 150
  logging_steps: 10
"""


def start(folder: Path, source: str, name: str, epochs: int) -> subprocess.Popen[bytes]:
    recipe = folder / f"{name}.yaml"
    recipe.write_text(RECIPE.format(source=source, out=folder / name, epochs=epochs))
    command = [sys.executable, "-W", "ignore", "-m", "detr_ft", "train", str(recipe), "--resume"]
    with (folder / f"{name}.log").open("ab") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True
        )


def steps_of(run: Path) -> int:
    """The step of the last row of the log."""
    lines = (run / "log.jsonl").read_text().splitlines() if (run / "log.jsonl").exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def follow(process: subprocess.Popen[bytes], each: Callable[[], bool]) -> None:
    """Ask twice a second, until the process ends or the answer is that it is to."""
    while process.poll() is None and not each():
        time.sleep(0.5)


@dataclass(frozen=True)
class Look:
    """Memory that is a process's own, in MiB, of the run and of its workers together, and open files of all."""

    step: int
    run: float
    workers: float
    files: int


def watch(process: subprocess.Popen[bytes], run: Path) -> list[Look]:
    """Twice a second."""
    recorded: list[Look] = []

    def look() -> bool:
        try:
            own = psutil.Process(process.pid)
            workers = own.children(recursive=True)
            memory = [one.memory_full_info().uss / 2**20 for one in (own, *workers)]
            files = sum(one.num_fds() for one in (own, *workers))
            recorded.append(Look(steps_of(run), memory[0], sum(memory[1:]), files))
        except psutil.NoSuchProcess:
            pass  # a worker ended meanwhile
        return False

    follow(process, look)
    return recorded


def kill_now_and_then(folder: Path, source: str, epochs: int) -> list[int]:
    """Run, be killed with all workers, resume: the steps after which it was."""
    at = sorted(random.Random(0).sample(range(50, _STEPS - 50), _KILLS))
    for step in at:
        process = start(folder, source, "killed", epochs)
        follow(process, lambda step=step: steps_of(folder / "killed") >= step)  # type: ignore[misc]
        for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            one.kill()
        process.wait()
    process = start(folder, source, "killed", epochs)
    if process.wait() != 0:
        raise SystemExit(f"the resumed run failed: {folder / 'killed.log'}")
    return at


def by_eighth(recorded: list[Look]) -> list[Look]:
    """The medians of each eighth of the steps."""
    last = max(one.step for one in recorded)
    parts = [[one for one in recorded if part * last <= 8 * one.step < (part + 1) * last] for part in range(8)]
    return [
        Look(
            max(one.step for one in part),
            median(one.run for one in part),
            median(one.workers for one in part),
            round(median(one.files for one in part)),
        )
        for part in parts
    ]


def same(one: Path, other: Path) -> list[str]:
    """Return the differences of two runs: weights, averaged and raw, and rows of the log without times."""
    differing = []
    for name in ("model.safetensors", "raw/model.safetensors"):
        first, second = load_file(one / name), load_file(other / name)
        differ = [key for key in first if not torch.equal(first[key], second[key])]
        differing += [f"{name}: {len(differ)} of {len(first)} tensors differ"] if differ else []
    rows = [
        [
            {key: value for key, value in json.loads(line).items() if "second" not in key}
            for line in (run / "log.jsonl").read_text().splitlines()
        ]
        for run in (one, other)
    ]
    return differing + (["log.jsonl differs"] if rows[0] != rows[1] else [])


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("source")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, required=True, help=f"as many as make {_STEPS} steps of 4 images")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    tables = Tables(arguments.json)
    began = time.monotonic()
    process = start(arguments.out, arguments.source, "alone", arguments.epochs)
    recorded = watch(process, arguments.out / "alone")
    if process.returncode != 0:
        raise SystemExit(f"the run failed: {arguments.out / 'alone.log'}")
    minutes = (time.monotonic() - began) / 60
    eighths = by_eighth(recorded)
    killed = kill_now_and_then(arguments.out, arguments.source, arguments.epochs)
    differences = same(arguments.out / "alone", arguments.out / "killed")
    tables.begin({"up to step": "", "run, MiB": ".1f", "workers, MiB": ".1f", "open files": ""})
    for one in eighths:
        tables.row(one.step, one.run, one.workers, one.files)
    tables.note(f"{steps_of(arguments.out / 'alone')} steps in {minutes:.1f} minutes, {len(recorded)} measurements")
    tables.note(
        f"killed after steps {', '.join(map(str, killed))}; {'; '.join(differences) or 'weights and log are equal, bit for bit'}"
    )
    half, last = eighths[3], eighths[7]
    grows = last.run + last.workers > (1 + _GROWTH) * (half.run + half.workers) or last.files > half.files
    return int(grows or bool(differences))


if __name__ == "__main__":
    raise SystemExit(main())
