"""Train a run for each of several seeds, and summarize their metrics."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from datasets import DatasetDict

from detr_ft.errors import InputError
from detr_ft.evaluation.metrics import SUMMARY_METRICS, RunMetrics
from detr_ft.recipe.load import BuiltRecipe
from detr_ft.run_directory import SEEDS, RunDirectory
from detr_ft.training.callbacks import Callback
from detr_ft.training.launch import exclusive, join, on_main_process
from detr_ft.utils.formatting import metric
from detr_ft.workflows.run import TrainOutcome, run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeedStatistics:
    """A metric over seeds: its mean, the standard deviation between runs, and the value of each run."""

    mean: float
    deviation: float
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class SeedsOutcome:
    """Runs by seed, and the statistics of each metric that at least two of them have; also `seeds.json`."""

    folder: Path
    runs: Mapping[int, TrainOutcome]
    statistics: Mapping[str, SeedStatistics]


def run_seeds(
    built: BuiltRecipe,
    seeds: Sequence[int],
    data: DatasetDict | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    force: bool = False,
) -> SeedsOutcome:
    """Train a run for each seed in `train.output_dir/seed-N`, with the same validation images.

    Raises InputError. With `resume` finished runs stay as they are.
    """
    _check_seeds(seeds)
    join(built.recipe.train.mixed_precision)
    with exclusive(built.recipe.train.output_dir):
        return _run_seeds(built, seeds, data, callbacks, resume, force)


def _run_seeds(
    built: BuiltRecipe,
    seeds: Sequence[int],
    data: DatasetDict | None,
    callbacks: Sequence[Callback],
    resume: bool,
    force: bool,
) -> SeedsOutcome:
    recipe = built.recipe
    base = RunDirectory(recipe.train.output_dir)
    on_main_process(lambda: base.remove(SEEDS) if resume else base.refuse_another_run())
    section = recipe.data.model_copy(update={"split_seed": recipe.split_seed})
    runs = {}
    for seed in seeds:
        train = recipe.train.model_copy(update={"seed": seed, "output_dir": str(base.path / f"seed-{seed}")})
        own = recipe.model_copy(update={"data": section, "train": train})
        logger.info("seed %d: %s", seed, train.output_dir)
        runs[seed] = run(replace(built, recipe=own), data, callbacks=callbacks, resume=resume, force=force)
        logger.info("seed %d: mAP %s", seed, metric(runs[seed].metrics.map))
    statistics = seed_statistics([outcome.metrics for outcome in runs.values()])
    content: dict[str, Any] = {"seeds": list(seeds)}
    content |= {
        name: {"mean": metric.mean, "deviation": metric.deviation, "values": metric.values}
        for name, metric in statistics.items()
    }
    on_main_process(lambda: base.write_text(SEEDS, json.dumps(content, indent=2) + "\n"))
    return SeedsOutcome(base.path, runs, statistics)


def _check_seeds(seeds: object) -> None:
    """Raise InputError unless seeds are at least two different whole numbers."""
    if isinstance(seeds, (str, bytes)) or not isinstance(seeds, Iterable):
        raise InputError(f"seeds (--seeds): must be a list of whole numbers, as in [0, 1, 2], got {seeds!r}")
    values = list(seeds)
    if not all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**32 for seed in values):
        raise InputError(f"seeds (--seeds): must be whole numbers from 0 to 2^32 - 1, got {values}")
    if len(values) < 2 or len(set(values)) < len(values):
        raise InputError(
            f"seeds (--seeds): must be at least two seeds, each once, got {values}. For one use train.seed"
        )


def seed_statistics(runs: Sequence[RunMetrics]) -> dict[str, SeedStatistics]:
    """Return mean and standard deviation of each metric that at least two runs have."""
    statistics: dict[str, SeedStatistics] = {}
    for name in SUMMARY_METRICS:
        values = [metrics.coco()[name] for metrics in runs]
        measured = [value for value in values if value is not None]
        if len(measured) > 1:
            statistics[name] = SeedStatistics(fmean(measured), stdev(measured), tuple(values))
    return statistics
