"""The `detr_ft` block of a model's config.json: what the toolkit noted there, checked when the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detr_ft.errors import InputError


def own_block(config: Any) -> dict[str, Any]:
    """The block of a config, empty where it has none."""
    block: dict[str, Any] = getattr(config, "detr_ft", None) or {}
    return block


def refuse_damaged(config: Any, checkpoint: str) -> None:
    """Raise InputError with all that can't be used of the block."""
    block = own_block(config)
    if not isinstance(block, Mapping):
        raise InputError(f"{checkpoint}: config.json: detr_ft is a mapping, and not {block!r}")
    faults = [
        f"detr_ft.{name} is a mapping, and not {block[name]!r}"
        for name in ("thresholds", "labels", "criterion", "lora")
        if not isinstance(block.get(name) or {}, Mapping)
    ]
    thresholds, labels = block.get("thresholds") or {}, block.get("labels") or {}
    if isinstance(thresholds, Mapping):
        faults += [
            f"detr_ft.thresholds: that of {name!r} is a number from 0 to 1, and not {value!r}"
            for name, value in thresholds.items()
            if not isinstance(value, (int, float)) or not 0 <= value <= 1
        ]
    if isinstance(labels, Mapping) and not isinstance(labels.get("reused") or {}, Mapping):
        faults.append(f"detr_ft.labels.reused is a mapping, and not {labels['reused']!r}")
    if faults:
        raise InputError([f"{checkpoint}: config.json: {fault}; mend it or leave it out" for fault in faults])
