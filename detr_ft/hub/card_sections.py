"""What a card says beside the figures: errors, data, criterion with its papers, limits, exports, and how it was trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from detr_ft.criterion.serialization import built_in_terms
from detr_ft.hub.card_values import figure, measured, section
from detr_ft.models.runtime_agreement import RUNTIMES
from detr_ft.report.markdown import text_of
from detr_ft.run_directory import EXAMPLES


def examples_section(run: Path) -> str:
    """Pictures of held-out images with what was found in them."""
    pictures = sorted((run / EXAMPLES).glob("*-found.jpg")) if (run / EXAMPLES).is_dir() else []
    shown = [f"![What was found in a held-out image](examples/{one.name})" for one in pictures if not one.is_symlink()]
    return (
        "\n".join(["## Examples", "", "Held-out images, with what is found above each class's threshold.", "", *shown])
        if shown
        else ""
    )


def errors_section(metrics: Mapping[str, Any]) -> str:
    """The errors of TIDE, with what each costs."""
    errors = section(metrics, "errors")
    rows = [
        f"| {text_of(kind)} | {figure(section(errors, kind).get('count'))} | {figure(section(errors, kind).get('map_50_lost'))} |"
        for kind in errors
    ]
    if not rows:
        return ""
    head = ["## Errors", "", "By kind (Bolya et al., TIDE, ECCV 2020), with the mAP50 that each costs.", ""]
    return "\n".join([*head, "| error | detections | mAP50 lost |", "|---|---|---|", *rows])


def data_section(metrics: Mapping[str, Any]) -> str:
    """What the model was trained on."""
    data = section(metrics, "data")
    if not data:
        return ""
    lines = [
        "## Training data",
        "",
        f"- {figure(data.get('train_images'))} images to train on, {figure(data.get('held_out_images'))} held out",
        f"- {text_of(data.get('boxes', ''))}",
    ]
    if data.get("skipped_images"):
        lines.append(f"- {figure(data['skipped_images'])} images could not be trained on and were left out")
    sizes = section(data, "sizes")
    if sizes:
        lines.append(
            "- "
            + ", ".join(f"{figure(count)} {text_of(name)}" for name, count in sizes.items())
            + " boxes (COCO's sizes)"
        )
    counts = section(data, "per_class")
    if counts:
        lines.append("- boxes: " + ", ".join(f"{text_of(name)} {figure(count)}" for name, count in counts.items()))
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


def limits_section(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """What the figures say that the model is not good at, and what no figure can say."""
    lines = []
    queries = config.get("num_queries")
    if isinstance(queries, int):
        lines.append(f"It has {queries} queries: of an image with more objects the rest can't be found.")
    sizes = {name: metrics.get(f"map_{name}") for name in ("small", "medium", "large")}
    known = {name: float(value) for name, value in sizes.items() if value is not None and measured(value)}
    if len(known) > 1:
        worst = min(known, key=lambda name: known[name])
        lines.append(f"It is weakest on {worst} objects (mAP {known[worst]:.3f}), by COCO's sizes.")
    rows = {
        name: row for name, row in section(metrics, "per_class").items() if measured(section({"": row}, "").get("map"))
    }
    if len(rows) > 1:
        worst = min(rows, key=lambda name: rows[name]["map"])
        lines.append(f"Of its classes {text_of(worst)} has the lowest mAP, {rows[worst]['map']:.3f}.")
    counts = section(section(metrics, "data"), "per_class")
    few = [name for name, count in counts.items() if isinstance(count, int) and count < 20]
    if few:
        lines.append(f"Trained on fewer than 20 boxes: {', '.join(map(text_of, few))}.")
    calibrated = section(metrics, "calibration").get("error")
    if measured(calibrated):
        lines.append(
            f"Its scores are off by {calibrated:.2f} on average: compare them with the thresholds above, not with each other's."
        )
    lines.append("On images unlike those it was trained on nothing is known of it: measure it on yours.")
    return "\n".join(["## Limits", "", *(f"- {line}" for line in lines)])


def exports_section(exported: Mapping[str, Any]) -> str:
    """The files for other runtimes, how fast they are, and what eight bits cost."""
    latency, files = section(exported, "latency"), section(exported, "files")
    base = section(latency, "pytorch").get("median")
    if not latency or not measured(base) or not base:
        return ""
    lines = [
        "## Other runtimes",
        "",
        f"One image, processed already, on {text_of(exported.get('hardware', 'a CPU'))}.",
        "",
    ]
    lines += ["| runtime | file | ms | against PyTorch |", "|---|---|---|---|"]
    for kind, spent in latency.items():
        path = section(files, kind).get("path")
        median = section({"": spent}, "").get("median")
        if isinstance(median, int | float):
            name = f"`{path}`" if path else ""
            lines.append(f"| {RUNTIMES.get(kind, text_of(kind))} | {name} | {median:.1f} | {median / base:.2f} |")
    full, small = (section(section(exported, "figures"), kind).get("map") for kind in ("pytorch", "int8"))
    if isinstance(full, int | float) and isinstance(small, int | float):
        lines += ["", f"In eight bits the mAP is {small:.4f}, in full {full:.4f}."]
    return "\n".join(lines)


def training_section(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Hardware, time, energy and versions, and the command."""
    about = section(metrics, "environment")
    if not about:
        return ""
    facts = {"hardware": about.get("hardware")}
    if isinstance(metrics.get("seconds"), int | float):
        facts["time"] = f"{metrics['seconds'] / 60:.1f} minutes"
    if measured(metrics.get("watt_hours")):
        facts["energy"] = f"{metrics['watt_hours']:g} Wh, of what computed alone"
    if isinstance(metrics.get("peak_memory_mib"), int):
        facts["memory"] = f"{metrics['peak_memory_mib']:,} MiB at most"
    versions = [f"{name} {value}" for name, value in about.items() if name not in ("hardware", "date")]
    facts |= {"date": about.get("date"), "with": ", ".join(versions)}
    reused = section(section(section(config, "detr_ft"), "labels"), "reused")
    if reused:
        facts["classes known before"] = ", ".join(
            ours if ours == theirs else f"{ours} (as {theirs})" for ours, theirs in reused.items()
        )
    lines = ["## Training", "", *(f"- {name}: {text_of(value)}" for name, value in facts.items() if value)]
    command = metrics.get("command")
    return "\n".join(
        lines + ([f"\n```bash\n{command}\n```"] if isinstance(command, str) and "`" not in command else [])
    )
