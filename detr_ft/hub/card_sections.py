"""What a card says beside the figures: errors, data, criterion with its papers, limits, exports, and how it was trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from detr_ft.criterion.serialization import built_in_terms
from detr_ft.evaluation.metrics import ExportMetrics, RunMetrics
from detr_ft.models.benchmark import RUNTIMES
from detr_ft.run_directory import EXAMPLES
from detr_ft.utils.formatting import markdown_text, minutes


def section(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a mapping inside another one, empty if there is none."""
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def examples_section(run: Path) -> str:
    """Pictures of held-out images with what was found in them."""
    pictures = sorted((run / EXAMPLES).glob("*-found.jpg")) if (run / EXAMPLES).is_dir() else []
    shown = [f"![What was found in a held-out image](examples/{one.name})" for one in pictures if not one.is_symlink()]
    return (
        "\n".join(["## Examples", "", "Held-out images, with what is found above each class's threshold.", "", *shown])
        if shown
        else ""
    )


def data_section(metrics: RunMetrics) -> str:
    """What the model was trained on."""
    data = metrics.data
    if data is None:
        return ""
    lines = [
        "## Training data",
        "",
        f"- {data.train_images:,} images to train on, {data.held_out_images:,} held out",
        f"- {markdown_text(data.boxes)}",
    ]
    if data.skipped_images:
        lines.append(f"- {data.skipped_images:,} images could not be trained on and were left out")
    if data.sizes:
        sizes = ", ".join(f"{count:,} {markdown_text(name)}" for name, count in data.sizes.items())
        lines.append(f"- {sizes} boxes (COCO's sizes)")
    if data.per_class:
        lines.append(
            "- boxes: " + ", ".join(f"{markdown_text(name)} {count:,}" for name, count in data.per_class.items())
        )
    return "\n".join(lines)


def criterion_section(config: Mapping[str, Any]) -> str:
    """The criterion as it stands in the config, what decided the matching and what scored it, and where its terms come from."""
    described = section(section(config, "detr_ft"), "criterion")
    if not described:
        return ""
    written = yaml.safe_dump(dict(described), sort_keys=False, allow_unicode=True).rstrip()
    lines = ["## Criterion", "", "Costs decide the matching, losses score it.", "", f"```yaml\n{written}\n```"]
    papers = {name: paper_of(name) for name in dict.fromkeys(_used(described))}
    cited = [f"- `{name}`: {paper}" for name, paper in papers.items() if paper]
    return "\n".join(lines + (["", "Sources:", "", *cited] if cited else []))


def paper_of(name: str) -> str:
    """The papers of a built-in term, without their arXiv ids; empty for other terms."""
    return re.sub(r" \(arXiv:[\d.]+\)", "", getattr(built_in_terms().get(name), "paper", ""))


def _used(described: object) -> Iterable[str]:
    """The names under `use`, wherever they stand."""
    if isinstance(described, Mapping):
        if isinstance(described.get("use"), str):
            yield described["use"]
        for value in described.values():
            yield from _used(value)
    elif isinstance(described, list):
        for value in described:
            yield from _used(value)


def limits_section(config: Mapping[str, Any], metrics: RunMetrics) -> str:
    """What the figures say that the model is not good at, and what no figure can say."""
    lines = []
    queries = config.get("num_queries")
    if isinstance(queries, int):
        lines.append(f"It has {queries} queries: of an image with more objects the rest can't be found.")
    sizes = {"small": metrics.map_small, "medium": metrics.map_medium, "large": metrics.map_large}
    known = {name: value for name, value in sizes.items() if value is not None}
    if len(known) > 1:
        worst = min(known, key=lambda name: known[name])
        lines.append(f"It is weakest on {worst} objects (mAP {known[worst]:.3f}), by COCO's sizes.")
    maps = {name: row.map for name, row in metrics.per_class.items() if row.map is not None}
    if len(maps) > 1:
        worst = min(maps, key=lambda name: maps[name])
        lines.append(f"Of its classes {markdown_text(worst)} has the lowest mAP, {maps[worst]:.3f}.")
    counts = metrics.data.per_class if metrics.data else {}
    few = [name for name, count in counts.items() if count < 20]
    if few:
        lines.append(f"Trained on fewer than 20 boxes: {', '.join(map(markdown_text, few))}.")
    if metrics.calibration and metrics.calibration.error is not None:
        lines.append(
            f"Its scores are off by {metrics.calibration.error:.2f} on average: compare them with the thresholds above, not with each other's."
        )
    lines.append("On images unlike those it was trained on nothing is known of it: measure it on yours.")
    return "\n".join(["## Limits", "", *(f"- {line}" for line in lines)])


def exports_section(exported: ExportMetrics) -> str:
    """The files for other runtimes, how fast they are, and what eight bits cost."""
    base = exported.latency.get("pytorch")
    if base is None:
        return ""
    lines = [
        "## Other runtimes",
        "",
        f"One image, processed already, on {markdown_text(exported.hardware)}.",
        "",
    ]
    lines += ["| runtime | file | ms | against PyTorch |", "|---|---|---|---|"]
    for kind, spent in exported.latency.items():
        name = f"`{exported.files[kind].path}`" if kind in exported.files else ""
        lines.append(
            f"| {RUNTIMES.get(kind, markdown_text(kind))} | {name} | {spent.median:.1f} | {spent.median / base.median:.2f} |"
        )
    full, small = (exported.figures.get(kind, {}).get("map") for kind in ("pytorch", "int8"))
    if full is not None and small is not None:
        lines += ["", f"In eight bits the mAP is {small:.4f}, in full {full:.4f}."]
    return "\n".join(lines)


def training_section(config: Mapping[str, Any], metrics: RunMetrics) -> str:
    """Hardware, time, energy and versions, and the command."""
    about = metrics.environment
    if not about:
        return ""
    facts = {"hardware": about.get("hardware")}
    if metrics.seconds is not None:
        facts["time"] = minutes(metrics.seconds)
    if metrics.watt_hours is not None:
        facts["energy"] = f"{metrics.watt_hours:g} Wh, of what computed alone"
    if metrics.peak_memory_mib is not None:
        facts["memory"] = f"{metrics.peak_memory_mib:,} MiB at most"
    versions = [f"{name} {value}" for name, value in about.items() if name not in ("hardware", "date")]
    facts |= {"date": about.get("date"), "with": ", ".join(versions)}
    reused = section(section(section(config, "detr_ft"), "labels"), "reused")
    if reused:
        facts["classes known before"] = ", ".join(
            ours if ours == theirs else f"{ours} (as {theirs})" for ours, theirs in reused.items()
        )
    lines = ["## Training", "", *(f"- {name}: {markdown_text(value)}" for name, value in facts.items() if value)]
    command = metrics.command
    return "\n".join(lines + ([f"\n```bash\n{command}\n```"] if command and "`" not in command else []))
