"""The model card of a run: what it detects, how well, with which criterion, and how to use it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from detr_ft.errors import UserError
from detr_ft.located_yaml import parse_yaml

_METRICS = {"map": "mAP", "map_50": "mAP50", "map_75": "mAP75", "mar_100": "AR100"}
_PER_CLASS = {"map": "mAP", "map_50": "mAP50", "mar_100": "AR100", "count": "objects"}


def write_card(run: Path, name: str) -> Path:
    """Write `README.md` into a run directory, from its config, metrics and recipe; returns its path.

    `name` is what the card calls the model and what its example loads: a repository, or the run's own path.
    """
    path = run / "README.md"
    if path.is_symlink():
        raise UserError(f"{path}: is a link, and a card is not written through one: remove the link")
    model_card(run, name).save(path)
    return path


def model_card(run: Path, name: str) -> ModelCard:
    """The card of a run directory. `config.json` must be there; `metrics.json` and `recipe.yaml` may be missing."""
    config, metrics, recipe = _read(run / "config.json"), _read(run / "metrics.json"), _read(run / "recipe.yaml")
    if not config:
        raise UserError(f"{run / 'config.json'}: missing or empty, so there is no model to describe")
    data = _metadata(name, config, metrics, recipe)
    sections = [
        f"# {_text(name.rsplit('/', 1)[-1])}",
        _detects(config, recipe),
        _results(metrics),
        _criterion(config),
        _usage(name),
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in sections if part) + "\n")


def _read(path: Path) -> dict[str, Any]:
    """A JSON or YAML file as a mapping, empty if there is none; YAML is read without making objects."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else parse_yaml(text, str(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: can't be read for the model card: {error}") from error
    if not isinstance(content, dict | None):
        raise UserError(f"{path}: holds no mapping, so there is nothing to take for the model card")
    return content or {}


def _metadata(
    name: str, config: Mapping[str, Any], metrics: Mapping[str, Any], recipe: Mapping[str, Any]
) -> ModelCardData:
    """The card's YAML header, with a model-index of the measured figures."""
    data_type, data_name = _data(recipe)
    results = [
        EvalResult(
            task_type="object-detection",
            task_name="Object Detection",
            dataset_type=data_type,
            dataset_name=data_name,
            metric_type=key,
            metric_name=title,
            metric_value=round(float(metrics[key]), 4),
        )
        for key, title in _METRICS.items()
        if _measured(metrics.get(key))
    ]
    source = str(_section(recipe, "data").get("source", ""))
    return ModelCardData(
        model_name=name.rsplit("/", 1)[-1],
        library_name="transformers",
        pipeline_tag="object-detection",
        tags=["detr", "object-detection", "detr-ft"],
        license=_section(recipe, "hub").get("license"),
        base_model=_section(config, "detr_ft").get("base_model"),
        datasets=[source.removeprefix("hub:")] if source.startswith("hub:") else None,
        eval_results=results or None,
    )


def _data(recipe: Mapping[str, Any]) -> tuple[str, str]:
    """Type and name of the data for the model-index. Of a path only the last part: folders are nobody's business."""
    source = str(_section(recipe, "data").get("source", ""))
    kind, _, rest = source.rpartition(":")
    if kind == "hub":
        return rest, rest
    return kind or "custom", PurePath(rest).stem or "the user's own data"


def _detects(config: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    names = [
        _text(str(value)) for _, value in sorted(config.get("id2label", {}).items(), key=lambda item: int(item[0]))
    ]
    _, data_name = _data(recipe)
    number = f"{len(names)} class" if len(names) == 1 else f"{len(names)} classes"
    return (
        f"A DETR detector of {number}, trained on {_text(data_name)} with detr-ft.\n\nIt detects: {', '.join(names)}."
    )


def _results(metrics: Mapping[str, Any]) -> str:
    """The measured figures and the table of classes, in COCO's protocol."""
    figures = [f"| {title} | {_figure(metrics[key])} |" for key, title in _METRICS.items() if key in metrics]
    if not figures:
        return ""
    lines = ["## Results", "", "COCO protocol, on data held out from training.", "", "| figure | value |", "|---|---|"]
    lines += figures
    per_class = metrics.get("per_class") or {}
    if per_class:
        lines += ["", f"| class | {' | '.join(_PER_CLASS.values())} |", "|---" * (len(_PER_CLASS) + 1) + "|"]
        for name, row in per_class.items():
            lines.append(f"| {_text(name)} | {' | '.join(_figure(row.get(key)) for key in _PER_CLASS)} |")
    return "\n".join(lines)


def _criterion(config: Mapping[str, Any]) -> str:
    """The criterion as it stands in the config: what decided the matching and what scored it."""
    criterion = _section(config, "detr_ft").get("criterion")
    if not criterion:
        return ""
    written = yaml.safe_dump(criterion, sort_keys=False, allow_unicode=True).rstrip()
    return f"## Criterion\n\nCosts decide the matching, losses score it.\n\n```yaml\n{written}\n```"


def _usage(name: str) -> str:
    return (
        "## Use\n\n```python\nfrom transformers import pipeline\n\n"
        f'detector = pipeline("object-detection", model={json.dumps(name)})\nprint(detector("image.jpg"))\n```'
    )


def _section(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def _measured(value: object) -> bool:
    """COCO writes -1 where there is nothing to measure."""
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _figure(value: object) -> str:
    if not _measured(value):
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _text(value: str) -> str:
    """A name as it may stand in a line or a table cell of Markdown."""
    return " ".join(value.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
