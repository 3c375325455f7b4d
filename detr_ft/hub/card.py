"""The model card of a run: its classes, metrics, criterion and limits, and how to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from detr_ft.errors import InputError
from detr_ft.evaluation.metrics import HEADINGS, MAIN_METRICS, ExportMetrics, Interval, RunMetrics
from detr_ft.hub.card_sections import (
    criterion_section,
    data_section,
    examples_section,
    exports_section,
    limits_section,
    section,
    training_section,
)
from detr_ft.report.headline import headline
from detr_ft.report.page import render_markdown
from detr_ft.run_directory import CARD, EXPORT_METRICS, METRICS, RECIPE, RunDirectory
from detr_ft.utils.formatting import markdown_text
from detr_ft.utils.yaml import parse_yaml

_INDEX_METRICS = (*MAIN_METRICS, "mar_100")


def write_card(run: Path, name: str, dataset: str | None = None) -> Path:
    """Write `README.md` into a run directory, from its config, metrics and recipe, and return its path.

    `name` is the name of the model in the card, which its example loads: a repository, or the path of the run.
    `dataset` is the name of its data on the Hub, if they were pushed. Raises InputError.
    """
    path = run / CARD
    if path.is_symlink():
        raise InputError(f"{path}: is a link, and the card would be written to its target. Remove the link.")
    model_card(run, name, dataset).save(path)
    RunDirectory(run).record([CARD])
    return path


def license_of(run: Path) -> str | None:
    """Return the license of the model by the recipe of the run."""
    name = section(_read(run / RECIPE), "hub").get("license")
    return str(name) if name else None


def model_card(run: Path, name: str, dataset: str | None = None) -> ModelCard:
    """Return the card of a run directory. Raises InputError without `config.json`."""
    config, recipe = _read(run / "config.json"), _read(run / RECIPE)
    metrics = RunMetrics.read(run / METRICS) if (run / METRICS).is_file() else RunMetrics()
    exported = ExportMetrics.read(run / EXPORT_METRICS) if (run / EXPORT_METRICS).is_file() else ExportMetrics()
    if not config:
        raise InputError(f"{run / 'config.json'}: missing or empty. Give the folder of a saved model.")
    labels = config.get("id2label", {})
    if not isinstance(labels, dict) or not all(key.isdecimal() for key in labels):
        raise InputError(
            f"{run / 'config.json'}: id2label must map indices to names, got {labels!r:.60}. Restore the file."
        )
    data = _metadata(name, config, metrics, recipe, dataset)
    sections = [
        f"# {markdown_text(name.rsplit('/', 1)[-1])}",
        markdown_text(headline(metrics, end=metrics.end)) if metrics.map is not None else "",
        _classes(config, recipe),
        _usage(name),
        examples_section(run),
        _evaluation(metrics),
        data_section(metrics),
        criterion_section(config),
        limits_section(config, metrics),
        exports_section(exported),
        training_section(config, metrics),
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in sections if part) + "\n")


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON or YAML file as a mapping, empty if there is none."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else parse_yaml(text, str(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: can't be read for the model card: {error}") from error
    if not isinstance(content, dict | None):
        raise InputError(f"{path}: must be a mapping, got {type(content).__name__}.")
    return content or {}


def _metadata(
    name: str, config: Mapping[str, Any], metrics: RunMetrics, recipe: Mapping[str, Any], dataset: str | None
) -> ModelCardData:
    """Return the YAML header of the card, with a model-index of metrics and their intervals."""
    data_type, data_name = (dataset, dataset) if dataset else _data(recipe)
    values = metrics.coco()
    results = [
        EvalResult(
            task_type="object-detection",
            task_name="Object Detection",
            dataset_type=data_type,
            dataset_name=data_name,
            metric_type=key,
            metric_name=HEADINGS[key],
            metric_value=round(value, 4),
            metric_args=_bounds(metrics.intervals.get(key)),
        )
        for key in _INDEX_METRICS
        if (value := values[key]) is not None
    ]
    source = str(section(recipe, "data").get("source", ""))
    on_hub = dataset or (source.removeprefix("hub:") if source.startswith("hub:") else None)
    return ModelCardData(
        model_name=name.rsplit("/", 1)[-1],
        library_name="transformers",
        pipeline_tag="object-detection",
        tags=["detr", "object-detection", "detr-ft"],
        license=section(recipe, "hub").get("license"),
        base_model=section(config, "detr_ft").get("base_model"),
        datasets=[on_hub] if on_hub else None,
        eval_results=results or None,
    )


def _data(recipe: Mapping[str, Any]) -> tuple[str, str]:
    """Return type and name of the data for the model-index. Folders of a path are private and left out."""
    source = str(section(recipe, "data").get("source", ""))
    kind, _, rest = source.rpartition(":")
    if kind == "hub":
        return rest, rest
    return kind or "custom", PurePath(rest).stem or "private data"


def _classes(config: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    names = [
        markdown_text(str(value))
        for _, value in sorted(config.get("id2label", {}).items(), key=lambda item: int(item[0]))
    ]
    _, data_name = _data(recipe)
    number = f"{len(names)} class" if len(names) == 1 else f"{len(names)} classes"
    return f"A DETR detector of {number}, trained on {markdown_text(data_name)} with detr-ft.\n\nIt detects: {', '.join(names)}."


def _evaluation(metrics: RunMetrics) -> str:
    """Return the sections of the report that have a Markdown form."""
    if metrics.map is None:
        return ""
    return f"## Evaluation\n\nOn images that were not used for training.\n\n{render_markdown(metrics).rstrip()}"


def _bounds(interval: Interval | None) -> dict[str, Any] | None:
    return interval and {"interval": [round(bound, 4) for bound in interval], "level": 0.95}


def _usage(name: str) -> str:
    return (
        "## Use\n\n```python\nfrom transformers import pipeline\n\n"
        f'detector = pipeline("object-detection", model={json.dumps(name)})\nprint(detector("image.jpg"))\n```'
    )
