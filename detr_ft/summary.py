"""What a run says of itself at its end: the page, and a few lines on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detr_ft.data.schema import boxes_of_classes
from detr_ft.prepare import Prepared


def verdict(before: Mapping[str, Any] | None, after: Mapping[str, Any], where: str = "held-out images") -> str:
    """One sentence on how good the model is now, on which images."""
    if not after or after["map"] is None:
        return f"Nothing was measured: {where} hold no objects."
    start = "" if not before or before["map"] is None else f", from {before['map']:.3f} before"
    return (
        f"On {where} the model reaches mAP {after['map']:.3f}{start}; "
        f"it finds objects with {after['map_50']:.0%} average precision where a box must overlap by half (mAP50)."
    )


def described(source: str, prepared: Prepared) -> dict[str, str]:
    """The data of a run in a few facts."""
    trained = boxes_of_classes(prepared.train)
    return {
        "data": source,
        "trained on": f"{len(prepared.train):,} images, {sum(trained.values()):,} boxes of {len(trained)} classes",
        "held out": f"{len(prepared.validation):,} images",
        "boxes to train on": ", ".join(f"{name} {count:,}" for name, count in trained.items()),
    }
