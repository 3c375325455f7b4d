"""Sections of a model card: examples, data, criterion with its papers, limits, exports and training."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from detr_ft.criterion.serialization import built_in_terms
from detr_ft.evaluation.metrics import ExportMetrics, RunMetrics
from detr_ft.models.benchmark import RUNTIMES
from detr_ft.run_directory import DETECTIONS_SUFFIX, EXAMPLES
from detr_ft.utils.formatting import markdown_text, minutes

_FEW_BOXES = 20


def section(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a mapping inside another one, empty if there is none."""
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def examples_section(run: Path) -> str:
    """Return pictures of held-out images with their detections."""
    files = sorted((run / EXAMPLES).glob(f"*{DETECTIONS_SUFFIX}.jpg")) if (run / EXAMPLES).is_dir() else []
    pictures = [f"![Detections in a held-out image]({EXAMPLES}/{file.name})" for file in files if not file.is_symlink()]
    if not pictures:
        return ""
    note = "Held-out images, with the detections above the threshold of each class."
    return "\n".join(["## Examples", "", note, "", *pictures])


def data_section(metrics: RunMetrics) -> str:
    """Return the numbers of images and boxes of the training data."""
    data = metrics.data
    if data is None:
        return ""
    lines = [
        "## Training data",
        "",
        f"- {data.train_images:,} training images, {data.held_out_images:,} held out",
        f"- {markdown_text(data.boxes)}",
    ]
    if data.skipped_images:
        lines.append(f"- {data.skipped_images:,} images could not be used and were left out")
    if data.sizes:
        sizes = ", ".join(f"{count:,} {markdown_text(name)}" for name, count in data.sizes.items())
        lines.append(f"- {sizes} boxes (COCO's sizes)")
    if data.per_class:
        lines.append(
            "- boxes: " + ", ".join(f"{markdown_text(name)} {count:,}" for name, count in data.per_class.items())
        )
    return "\n".join(lines)


def criterion_section(config: Mapping[str, Any]) -> str:
    """Return the criterion of the config, with the papers of its terms."""
    criterion = section(section(config, "detr_ft"), "criterion")
    if not criterion:
        return ""
    text = yaml.safe_dump(dict(criterion), sort_keys=False, allow_unicode=True).rstrip()
    lines = ["## Criterion", "", "Costs decide the matching, losses score it.", "", f"```yaml\n{text}\n```"]
    papers = {name: paper_of(name) for name in dict.fromkeys(_term_names(criterion))}
    cited = [f"- `{name}`: {paper}" for name, paper in papers.items() if paper]
    return "\n".join(lines + (["", "Sources:", "", *cited] if cited else []))


def paper_of(name: str) -> str:
    """Return the papers of a built-in term, without their arXiv ids; empty for other terms."""
    return re.sub(r" \(arXiv:[\d.]+\)", "", getattr(built_in_terms().get(name), "paper", ""))


def _term_names(content: object) -> Iterable[str]:
    """Yield the names under `use` at any depth."""
    if isinstance(content, Mapping):
        if isinstance(content.get("use"), str):
            yield content["use"]
        for value in content.values():
            yield from _term_names(value)
    elif isinstance(content, list):
        for value in content:
            yield from _term_names(value)


def limits_section(config: Mapping[str, Any], metrics: RunMetrics) -> str:
    """Return the weaknesses that the metrics show, and the limits that no metric can show."""
    lines = []
    queries = config.get("num_queries")
    if isinstance(queries, int):
        lines.append(f"It has {queries} queries, so at most {queries} objects of an image can be detected.")
    sizes = {"small": metrics.map_small, "medium": metrics.map_medium, "large": metrics.map_large}
    measured = {name: value for name, value in sizes.items() if value is not None}
    if len(measured) > 1:
        worst = min(measured, key=lambda name: measured[name])
        lines.append(f"It is weakest on {worst} objects (mAP {measured[worst]:.3f}), by COCO's sizes.")
    maps = {name: row.map for name, row in metrics.per_class.items() if row.map is not None}
    if len(maps) > 1:
        worst = min(maps, key=lambda name: maps[name])
        lines.append(f"The class with the lowest mAP is {markdown_text(worst)}, {maps[worst]:.3f}.")
    counts = metrics.data.per_class if metrics.data else {}
    few = [name for name, count in counts.items() if count < _FEW_BOXES]
    if few:
        lines.append(f"Trained on fewer than {_FEW_BOXES} boxes: {', '.join(map(markdown_text, few))}.")
    if metrics.calibration and metrics.calibration.error is not None:
        lines.append(
            f"Its scores differ from the fraction of correct detections by {metrics.calibration.error:.2f} on average. "
            "Use the thresholds above."
        )
    lines.append("It was not evaluated on images unlike its training data. Evaluate it on yours.")
    return "\n".join(["## Limits", "", *(f"- {line}" for line in lines)])


def exports_section(exported: ExportMetrics) -> str:
    """Return the files for other runtimes, their latency, and the mAP with eight bits."""
    base = exported.latency.get("pytorch")
    if base is None:
        return ""
    lines = [
        "## Other runtimes",
        "",
        f"Latency of one preprocessed image on {markdown_text(exported.hardware)}.",
        "",
    ]
    lines += ["| runtime | file | ms | relative to PyTorch |", "|---|---|---|---|"]
    for kind, latency in exported.latency.items():
        name = f"`{exported.files[kind].path}`" if kind in exported.files else ""
        lines.append(
            f"| {RUNTIMES.get(kind, markdown_text(kind))} | {name} | {latency.median:.1f} | {latency.median / base.median:.2f} |"
        )
    full, small = (exported.figures.get(kind, {}).get("map") for kind in ("pytorch", "int8"))
    if full is not None and small is not None:
        lines += ["", f"The mAP is {small:.4f} with eight bits and {full:.4f} with full precision."]
    return "\n".join(lines)


def training_section(config: Mapping[str, Any], metrics: RunMetrics) -> str:
    """Return hardware, time, energy, versions and the command."""
    about = metrics.environment
    if not about:
        return ""
    facts = {"hardware": about.get("hardware")}
    if metrics.seconds is not None:
        facts["time"] = minutes(metrics.seconds)
    if metrics.watt_hours is not None:
        facts["energy"] = f"{metrics.watt_hours:g} Wh of the GPU or processor"
    if metrics.peak_memory_mib is not None:
        facts["memory"] = f"{metrics.peak_memory_mib:,} MiB peak"
    versions = [f"{name} {value}" for name, value in about.items() if name not in ("hardware", "date")]
    facts |= {"date": about.get("date"), "with": ", ".join(versions)}
    reused = section(section(section(config, "detr_ft"), "labels"), "reused")
    if reused:
        facts["classes of the checkpoint"] = ", ".join(
            ours if ours == theirs else f"{ours} (as {theirs})" for ours, theirs in reused.items()
        )
    lines = ["## Training", "", *(f"- {name}: {markdown_text(value)}" for name, value in facts.items() if value)]
    command = metrics.command
    return "\n".join(lines + ([f"\n```bash\n{command}\n```"] if command and "`" not in command else []))
