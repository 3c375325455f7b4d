"""The `detr_ft` block of a model's config: the only module that reads and writes it.

The block has `labels` (where the rows of the class head came from), `criterion` (its description), `base_model` (a
repository of the Hub), `lora` (settings of adapters) and `thresholds` (a score for each class); each may be absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from detr_ft.errors import InputError
from detr_ft.run_directory import RunDirectory

_MAPPINGS = ("thresholds", "labels", "criterion", "lora")


def read_labels(config: Any) -> dict[str, str]:
    """Return for each class of the model that a checkpoint had, the name that it had there."""
    return dict((_block(config).get("labels") or {}).get("reused") or {})


def read_criterion(config: Any) -> dict[str, Any] | None:
    """Return the description of the criterion that the model was trained by."""
    return _block(config).get("criterion") or None


def read_lora(config: Any) -> dict[str, Any] | None:
    """Return the settings of the adapters that the model was trained with."""
    return _block(config).get("lora") or None


def read_thresholds(config: Any) -> dict[str, float]:
    """Return the score threshold of each class that has one."""
    return {name: float(value) for name, value in (_block(config).get("thresholds") or {}).items()}


def write_labels(config: Any, reused: Mapping[str, str], new: list[str]) -> None:
    """Start the block of a model with new classes: everything recorded for its checkpoint is removed."""
    config.detr_ft = {"labels": {"reused": dict(reused), "new": list(new)}}


def write_lora(config: Any, settings: Mapping[str, Any]) -> None:
    """Record the settings of adapters."""
    config.detr_ft = _block(config) | {"lora": dict(settings)}


def write_criterion(config: Any, description: Mapping[str, Any], base_model: str | None) -> None:
    """Record the description of the criterion, and the repository of the Hub that training starts from."""
    config.detr_ft = _block(config) | {"criterion": dict(description), "base_model": base_model}


def write_thresholds(run: RunDirectory, thresholds: Mapping[str, float]) -> None:
    """Record score thresholds in the `config.json` of a saved model."""
    config: dict[str, Any] = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    config.setdefault("detr_ft", {})["thresholds"] = dict(thresholds)
    run.write_text("config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")


def check_metadata(config: Any, checkpoint: str) -> None:
    """Raise InputError with every invalid value of the block."""
    block = _block(config)
    if not isinstance(block, Mapping):
        raise InputError(f"{checkpoint}: config.json: detr_ft must be a mapping, got {block!r}. Remove it.")
    faults = [
        f"detr_ft.{name} must be a mapping, got {block[name]!r}"
        for name in _MAPPINGS
        if not isinstance(block.get(name) or {}, Mapping)
    ]
    thresholds, labels = block.get("thresholds") or {}, block.get("labels") or {}
    if isinstance(thresholds, Mapping):
        faults += [
            f"detr_ft.thresholds.{name} must be a number from 0 to 1, got {value!r}"
            for name, value in thresholds.items()
            if not isinstance(value, (int, float)) or not 0 <= value <= 1
        ]
    if isinstance(labels, Mapping) and not isinstance(labels.get("reused") or {}, Mapping):
        faults.append(f"detr_ft.labels.reused must be a mapping, got {labels['reused']!r}")
    if faults:
        raise InputError([f"{checkpoint}: config.json: {fault}. Correct or remove it." for fault in faults])


def _block(config: Any) -> dict[str, Any]:
    block: dict[str, Any] = getattr(config, "detr_ft", None) or {}
    return block
