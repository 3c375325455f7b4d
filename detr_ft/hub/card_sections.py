"""What a card says beside the figures: errors, data, criterion with its papers, limits, exports, and how it was trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from detr_ft import criterion as terms
from detr_ft.evaluation.metrics import ExportMetrics, RunMetrics
from detr_ft.hub.card_values import figure, section
from detr_ft.models.runtime_agreement import RUNTIMES
from detr_ft.report.markdown import text_of
from detr_ft.run_directory import EXAMPLES

# As the docstrings of the terms give their sources: names, venue, year, and where in it.
_PAPER = re.compile(
    r"[A-Z][\w-]+(?: et al\.)?, (?:[A-Z][A-Za-z]+ )?(?:CVPR|ECCV|ICCV|ICLR|NeurIPS|AAAI|BMVC|WACV)W? \d{4}(?:, (?:equations?|section|table|figure|appendix) [A-Z]?[\d.]*\d)?"
)


def examples_section(run: Path) -> str:
    """Pictures of held-out images with what was found in them."""
    pictures = sorted((run / EXAMPLES).glob("*-found.jpg")) if (run / EXAMPLES).is_dir() else []
    shown = [f"![What was found in a held-out image](examples/{one.name})" for one in pictures if not one.is_symlink()]
    return (
        "\n".join(["## Examples", "", "Held-out images, with what is found above each class's threshold.", "", *shown])
        if shown
        else ""
    )


def errors_section(metrics: RunMetrics) -> str:
    """The errors of TIDE, with what each costs."""
    rows = [
        f"| {text_of(kind)} | {figure(error.count)} | {figure(error.map_50_lost)} |"
        for kind, error in metrics.errors.items()
    ]
    if not rows:
        return ""
    head = ["## Errors", "", "By kind (Bolya et al., TIDE, ECCV 2020), with the mAP50 that each costs.", ""]
    return "\n".join([*head, "| error | detections | mAP50 lost |", "|---|---|---|", *rows])


def data_section(metrics: RunMetrics) -> str:
    """What the model was trained on."""
    data = metrics.data
    if data is None:
        return ""
    lines = [
        "## Training data",
        "",
        f"- {data.train_images:,} images to train on, {data.held_out_images:,} held out",
        f"- {text_of(data.boxes)}",
    ]
    if data.skipped_images:
        lines.append(f"- {data.skipped_images:,} images could not be trained on and were left out")
    if data.sizes:
        sizes = ", ".join(f"{count:,} {text_of(name)}" for name, count in data.sizes.items())
        lines.append(f"- {sizes} boxes (COCO's sizes)")
    if data.per_class:
        lines.append("- boxes: " + ", ".join(f"{text_of(name)} {count:,}" for name, count in data.per_class.items()))
    return "\n".join(lines)


def criterion_section(config: Mapping[str, Any]) -> str:
    """The criterion as it stands in the config, what decided the matching and what scored it, and where its terms come from."""
    described = section(section(config, "detr_ft"), "criterion")
    if not described:
        return ""
    written = yaml.safe_dump(dict(described), sort_keys=False, allow_unicode=True).rstrip()
    lines = ["## Criterion", "", "Costs decide the matching, losses score it.", "", f"```yaml\n{written}\n```"]
    papers = {name: papers_of(name) for name in dict.fromkeys(_used(described))}
    cited = [f"- `{name}`: {'; '.join(found)}" for name, found in papers.items() if found]
    return "\n".join(lines + (["", "Sources:", "", *cited] if cited else []))


def papers_of(name: str) -> list[str]:
    """The papers that a built-in term's docstring names; none for a term of somebody's own."""
    term = getattr(terms, name, None) if name in terms.__all__ else None
    return (
        list(dict.fromkeys(" ".join(one.split()) for one in _PAPER.findall(" ".join((term.__doc__ or "").split()))))
        if term
        else []
    )


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
        lines.append(f"Of its classes {text_of(worst)} has the lowest mAP, {maps[worst]:.3f}.")
    counts = metrics.data.per_class if metrics.data else {}
    few = [name for name, count in counts.items() if count < 20]
    if few:
        lines.append(f"Trained on fewer than 20 boxes: {', '.join(map(text_of, few))}.")
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
        f"One image, processed already, on {text_of(exported.hardware)}.",
        "",
    ]
    lines += ["| runtime | file | ms | against PyTorch |", "|---|---|---|---|"]
    for kind, spent in exported.latency.items():
        name = f"`{exported.files[kind].path}`" if kind in exported.files else ""
        lines.append(
            f"| {RUNTIMES.get(kind, text_of(kind))} | {name} | {spent.median:.1f} | {spent.median / base.median:.2f} |"
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
        facts["time"] = f"{metrics.seconds / 60:.1f} minutes"
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
    lines = ["## Training", "", *(f"- {name}: {text_of(value)}" for name, value in facts.items() if value)]
    command = metrics.command
    return "\n".join(lines + ([f"\n```bash\n{command}\n```"] if command and "`" not in command else []))
