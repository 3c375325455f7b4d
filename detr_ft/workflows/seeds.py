"""What the command `train` does: a run by a recipe, or one for each of several seeds, summed up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from detr_ft.errors import InputError
from detr_ft.evaluation.metrics import SUMMARY_METRICS, RunMetrics
from detr_ft.recipe import load_recipe
from detr_ft.run_directory import METRICS, SEEDS, RunDirectory
from detr_ft.utils.distributed import rank
from detr_ft.utils.formatting import metric
from detr_ft.utils.progress import say
from detr_ft.workflows.train import train_by


def train_by_seeds(path: Path, overrides: Sequence[str], seeds: str, resume: bool, force: bool) -> None:
    """Train a run for each seed, below train.output_dir, and sum up what they reach: `seeds.json` there, and a table.

    The same images are held out in all of them. With `resume` those that are finished are left as they are.
    """
    recipe, _ = load_recipe(path, overrides)
    numbers = seeds_of(seeds)
    base = Path(recipe.train.output_dir)
    if not resume and rank() == 0:  # the others come when it has begun
        RunDirectory(base).refuse_another_run()
    held_out = recipe.train.seed if recipe.data.split_seed is None else recipe.data.split_seed
    for number in numbers:
        say(f"seed {number}: {base / f'seed-{number}'}")
        own = [f"train.seed={number}", f"train.output_dir={base / f'seed-{number}'}", f"data.split_seed={held_out}"]
        train_by(path, [*overrides, *own], resume, force)
    if rank() == 0:
        found = {number: RunMetrics.read(base / f"seed-{number}" / METRICS) for number in numbers}
        summary = summed_up(found)
        RunDirectory(base).write_text(SEEDS, json.dumps(summary, indent=2) + "\n")
        say(table(summary))


def seeds_of(text: str) -> list[int]:
    """The seeds in `0,1,2`. Raises InputError for anything else, and for fewer than two or the same twice."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--seeds {text}: give whole numbers with commas between them, as in 0,1,2")
    numbers = [int(part) for part in parts]
    if len(numbers) < 2 or len(set(numbers)) < len(numbers):
        raise InputError(f"--seeds {text}: give two seeds or more, each once; for a single one train.seed={numbers[0]}")
    return numbers


def summed_up(found: dict[int, RunMetrics]) -> dict[str, Any]:
    """Of each figure the mean over seeds, the standard deviation and the value of each."""
    summary: dict[str, Any] = {"seeds": list(found)}
    for name in SUMMARY_METRICS:
        values = [one.coco()[name] for one in found.values()]
        known = [value for value in values if value is not None]
        if len(known) > 1:
            summary[name] = {"mean": fmean(known), "deviation": stdev(known), "values": values}
    return summary


def table(summary: dict[str, Any]) -> str:
    """The same as plain text."""
    lines = [f"over seeds {', '.join(map(str, summary['seeds']))}: mean, and standard deviation between runs"]
    lines += [
        f"{name:<12} {summary[name]['mean']:.3f} ± {summary[name]['deviation']:.3f}   ({', '.join(metric(value) for value in summary[name]['values'])})"
        for name in SUMMARY_METRICS
        if name in summary
    ]
    return "\n".join(lines)
