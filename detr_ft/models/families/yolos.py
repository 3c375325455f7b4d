"""YOLOS (Fang et al., NeurIPS 2021): a vision transformer with detection tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import YolosForObjectDetection

from detr_ft.criterion import detr_criterion
from detr_ft.models.families.base import Family, LossInputs, ModelPart
from detr_ft.structures import Predictions


@dataclass(frozen=True, kw_only=True)
class YolosFamily(Family):
    """The heads of YOLOS read the final layer only, as in the paper."""

    def predictions(self, outputs: LossInputs) -> Predictions:
        """Return the final layer as the only row."""
        return self.final(outputs.logits, outputs.boxes)

    def num_queries(self, config: Any) -> int:
        """Return the number of detection tokens."""
        tokens: int = config.num_detection_tokens
        return tokens

    def compiled_parts(self, model: Any) -> list[nn.Module]:
        """Return the encoder layers."""
        return list(model.vit.encoder.layer)


YOLOS = YolosFamily(
    name="YOLOS",
    model_type="yolos",
    model_class=YolosForObjectDetection,
    activation="softmax",
    class_layers=("class_labels_classifier.layers.2",),
    parts=(
        ModelPart("backbone", "backbone", "vit.embeddings.cls_token"),
        ModelPart("backbone", "backbone", "vit.embeddings.patch_embeddings."),
        ModelPart("backbone", "backbone", "vit.embeddings.position_embeddings"),
        ModelPart("queries", "decoder", "vit.embeddings.detection_tokens"),
        ModelPart("encoder", "encoder", "vit.encoder."),
        ModelPart("encoder", "encoder", "vit.layernorm."),
        ModelPart("class_head", "heads", "class_labels_classifier."),
        ModelPart("box_head", "heads", "bbox_predictor."),
    ),
    supports=frozenset({"gradient_checkpointing"}),
    images="unmasked",
    default_criterion=detr_criterion,
)
