"""A made-up family: scores by sigmoid, boxes refined from layer to layer, no module of a DETR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForObjectDetection, DetrImageProcessor, PreTrainedConfig, PreTrainedModel
from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput

from detr_ft.criterion import BoxL1Cost, BoxL1Loss, ClassCost, GIoUCost, GIoULoss, HungarianMatcher, SetCriterion
from detr_ft.criterion.base import QueryLoss
from detr_ft.models.families import FAMILIES, registry
from detr_ft.models.families.base import Family, LossInputs, ModelPart
from detr_ft.structures import Matches, Predictions, Targets

WIDTH, LAYERS = 16, 2


class RefinerConfig(PreTrainedConfig):
    """The config of a refiner."""

    model_type = "refiner"

    def __init__(self, queries: int = 6, **settings: Any) -> None:
        self.queries = queries
        super().__init__(**settings)


class Layer(nn.Module):
    """Queries `[B, Q, D]` that read the image, and the boxes before the layer, `[B, Q, 4]` before the sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.offset = nn.Linear(WIDTH, 4)

    def forward(self, hidden: Tensor, reference: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        hidden = hidden + self.attention(hidden, tokens, tokens)[0]
        return hidden, reference + self.offset(hidden)


class RefinerForObjectDetection(PreTrainedModel):
    """Patches, queries that read them, and a class head."""

    config_class = RefinerConfig
    main_input_name = "pixel_values"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.patches = nn.Conv2d(3, WIDTH, 16, 16)
        self.slots = nn.Embedding(config.queries, WIDTH)
        self.anchors = nn.Embedding(config.queries, 4)
        self.blocks = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.scores = nn.Linear(WIDTH, config.num_labels)
        self.post_init()

    def forward(
        self, pixel_values: Tensor, pixel_mask: Tensor | None = None, labels: Any = None, **_: Any
    ) -> DetrObjectDetectionOutput:
        images = len(pixel_values)
        tokens = self.patches(pixel_values).flatten(2).mT
        hidden, reference = (part.weight.expand(images, -1, -1) for part in (self.slots, self.anchors))
        for layer in self.blocks:
            hidden, reference = layer(hidden, reference, tokens)
        logits, boxes = self.scores(hidden), reference.sigmoid()
        loss = values = None
        if labels is not None:
            loss, values, _ = self.loss_function(logits, labels, self.device, boxes, self.config)
        return DetrObjectDetectionOutput(loss=loss, loss_dict=values, logits=logits, pred_boxes=boxes)


@dataclass(frozen=True)
class SigmoidLoss(QueryLoss):
    """Binary cross-entropy of each class of each query, over the number of targets."""

    weight: float = 1.0
    name: ClassVar[str] = "loss_class"
    activations: ClassVar[frozenset[str]] = frozenset({"sigmoid"})
    paper: ClassVar[str] = ""

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        wanted = torch.zeros_like(predictions.logits)
        label = matches.target_values(targets.labels)
        wanted[matches.layer, matches.image, matches.query, label] = 1
        loss = functional.binary_cross_entropy_with_logits(predictions.logits, wanted, reduction="none").sum(-1)
        return loss / matches.num_boxes[:, None, None]


def refiner_criterion() -> SetCriterion:
    return SetCriterion(
        HungarianMatcher([ClassCost(weight=2), BoxL1Cost(weight=5), GIoUCost(weight=2)]),
        [SigmoidLoss(weight=2), BoxL1Loss(weight=5), GIoULoss(weight=2)],
    )


@dataclass(frozen=True, kw_only=True)
class RefinerFamily(Family):
    """Boxes of a layer are its reference points and its own offsets."""

    def predictions(self, outputs: LossInputs) -> Predictions:
        assert outputs.layer_logits is not None
        assert outputs.layer_boxes is not None
        return self.layers(outputs.layer_logits, outputs.layer_boxes)

    def layers(self, logits: Tensor, boxes: Tensor) -> Predictions:
        return Predictions(logits, boxes, self.activation, ("first", ""))

    def recorded_modules(self, model: Any) -> Sequence[nn.Module]:
        modules: Sequence[nn.Module] = model.blocks
        return modules

    def apply_heads(self, model: Any, outputs: Sequence[Any]) -> tuple[Tensor, Tensor]:
        hidden, references = (torch.stack(parts) for parts in zip(*outputs, strict=True))
        return model.scores(hidden), references.sigmoid()

    def compiled_parts(self, model: Any) -> list[nn.Module]:
        return list(model.blocks)

    def num_queries(self, config: Any) -> int:
        queries: int = config.queries
        return queries


REFINER = RefinerFamily(
    name="Refiner",
    model_type="refiner",
    model_class=RefinerForObjectDetection,
    activation="sigmoid",
    class_layers=("scores",),
    parts=(
        ModelPart("backbone", "backbone", "patches."),
        ModelPart("queries", "decoder", "slots."),
        ModelPart("anchors", "decoder", "anchors."),
        ModelPart("decoder", "decoder", "blocks."),
        ModelPart("class_head", "heads", "scores."),
    ),
    supports=frozenset({"recipes"}),
    images="masked",
    default_criterion=refiner_criterion,
    freeze=("backbone",),
)


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the family to the registry, and its classes to transformers."""
    monkeypatch.setattr(registry, "FAMILIES", (*FAMILIES, REFINER))
    AutoConfig.register("refiner", RefinerConfig, exist_ok=True)
    AutoModelForObjectDetection.register(RefinerConfig, RefinerForObjectDetection, exist_ok=True)


def save_checkpoint(folder: Path, names: Sequence[str] = ("cat", "dog", "owl")) -> Path:
    """Save a model with random weights, and its processor."""
    torch.manual_seed(0)
    labels = dict(enumerate(names))
    config = RefinerConfig(id2label=labels, label2id={name: index for index, name in labels.items()})
    RefinerForObjectDetection(config).save_pretrained(folder)
    DetrImageProcessor(size={"max_height": 64, "max_width": 64}).save_pretrained(folder)
    return folder
