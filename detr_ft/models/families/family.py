"""Which models are trained here: DETR, and the sisters whose answers are DETR's: `logits [B, Q, K+1]` by softmax."""

from __future__ import annotations

from typing import Any

from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    PreTrainedConfig,
    TableTransformerConfig,
    TableTransformerForObjectDetection,
    YolosForObjectDetection,
)

from detr_ft.errors import InputError

Detr = DetrForObjectDetection | TableTransformerForObjectDetection  # one architecture, by two names
AttachableModel = Detr | YolosForObjectDetection

# They score each class by a sigmoid and have no no-object, so that matching cost and classification loss are others.
_SIGMOID = {
    "conditional_detr": "Conditional DETR",
    "dab-detr": "DAB-DETR",
    "deformable_detr": "Deformable DETR",
    "d_fine": "D-FINE",
    "deimv2": "DEIMv2",
    "lw_detr": "LW-DETR",
    "rf_detr": "RF-DETR",
    "rt_detr": "RT-DETR",
    "rt_detr_v2": "RT-DETRv2",
}


def is_detr(config: PreTrainedConfig) -> bool:
    """Whether a config is that of a `DetrAugmentation`."""
    return isinstance(config, DetrConfig | TableTransformerConfig)


def refuse_others(checkpoint: str, config: Any) -> None:
    """Raises InputError for a config that is no `DetrAugmentation`'s, saying what can be done with it."""
    if is_detr(config):
        return
    kind = config.model_type
    if kind in _SIGMOID:
        raise InputError(
            f"{checkpoint}: {_SIGMOID[kind]} is not supported yet: it scores each class by a sigmoid, without no-object, and "
            "detr_ft trains detectors by softmax with it (DETR and Table Transformer, for example facebook/detr-resnet-50)"
        )
    if kind == "yolos":
        raise InputError(
            f"{checkpoint}: recipes train DETR and Table Transformer; a YOLOS trains by any criterion of detr_ft in a loop "
            "of your own: attach_criterion(model, criterion)"
        )
    raise InputError(
        f"{checkpoint}: this is a {kind!r} model; detr_ft fine-tunes DETR (DetrForObjectDetection) and Table Transformer, "
        "for example facebook/detr-resnet-50"
    )
