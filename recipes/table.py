"""Rows of the results table, from run directories.   python recipes/table.py RUN ..."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from detr_ft.evaluation.metrics import RunMetrics
from detr_ft.run_directory import METRICS
from detr_ft.utils.formatting import metric


def row(run: Path) -> str:
    """One line of Markdown: what was trained from what, what it reached, and what it took."""
    metrics = RunMetrics.read(run / METRICS)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    maps = [(one["epoch"], one["map"]) for one in log if "map" in one]
    about = metrics.environment
    cells = [
        run.name,
        recipe["model"]["checkpoint"] or "random weights",
        f"{recipe['data']['longest_edge'] or 'its own'}",
        str(recipe["train"]["num_train_epochs"]),
        " → ".join(f"{value:.3f}" for _, value in maps),
        metric(metrics.map_50),
        f"{(metrics.seconds or 0) / 60:.1f}",
        f"{metrics.peak_memory_mib or 0:,}",
        f"{about['hardware']}, torch {about['torch']}, {about['date']}",
        f"`{metrics.command}`",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print("| run | from | px | epochs | mAP, at each evaluation | mAP50 | minutes | MiB | hardware | command |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in sys.argv[1:]:
        print(row(Path(name)))
