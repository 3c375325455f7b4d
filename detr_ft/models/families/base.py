"""The description of a model family: where its parts are and how its outputs become predictions."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor, nn
from transformers import PreTrainedModel

from detr_ft.criterion import SetCriterion
from detr_ft.errors import InputError
from detr_ft.structures import Activation, Predictions

Section = Literal["backbone", "encoder", "decoder", "heads"]
Operation = Literal[
    "recipes",  # training by a recipe; without it the family trains by `attach_criterion` only
    "num_queries",
    "decoder_layers",
    "lora",
    "attention",  # attention maps of encoder and decoder
    "export",
    "gradient_checkpointing",
    "fused_norms",
    "no_sync",
    "cuda_graphs",
]

# The path of a convolutional backbone, in the releases and families of transformers.
BACKBONE_PATTERN = r"backbone\.(?:conv_encoder\.)?model\."
# The stages of a ResNet below the prefix of a backbone, under the names of transformers and under those of timm.
_NATIVE_STAGE = re.compile(r"(?:conv_encoder\.)?model\.(?:embedder|encoder\.stages\.(?P<stage>\d+))\.")
_TIMM_STAGE = re.compile(r"(?:conv_encoder\.)?model\.(?:conv1|bn1|layer(?P<stage>\d+))\b")


@dataclass(frozen=True)
class ModelPart:
    """A group of parameters: name (in `model.freeze`), section (of learning rates) and prefix."""

    name: str
    section: Section
    prefix: str


@dataclass(frozen=True)
class LossInputs:
    """The outputs that a model passes to its loss function.

    `logits [B, Q, C]` and `boxes [B, Q, 4]` are the final ones, `layer_logits` and `layer_boxes` those of all layers where
    the model passes them or `Family.apply_heads` computes them; `extras` has the further arguments of the family, by name.
    """

    logits: Tensor
    boxes: Tensor
    layer_logits: Tensor | None = None
    layer_boxes: Tensor | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """A family of detectors of transformers.

    Paths are those of `get_submodule`, None where the family has no such module. `class_layers` are the linear layers with
    a row for each class, `lora_layers` is a regular expression for the linear layers that adapters go into. With
    `images="masked"` a batch is padded and has a pixel mask; with `"unmasked"` the model has none, and images are processed
    one by one. `freeze` are the parts that a new recipe does not train.
    """

    name: str
    model_type: str  # of the config
    model_class: type[PreTrainedModel]
    activation: Activation
    class_layers: tuple[str, ...]
    parts: tuple[ModelPart, ...]  # their prefixes cover every parameter exactly once
    supports: frozenset[Operation]
    images: Literal["masked", "unmasked"]
    default_criterion: Callable[[], SetCriterion]
    backbone: str | None = None
    frozen_norm: type[nn.Module] | None = None
    projection: str | None = None  # of the features of the backbone to the width of the encoder
    query_embedding: str | None = None
    lora_layers: str | None = None
    freeze: tuple[str, ...] = ()

    @abstractmethod
    def predictions(self, outputs: LossInputs) -> Predictions:
        """Return the predictions for a criterion: a row for each supervised layer, the final one last."""

    def recorded_modules(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """Return the modules whose outputs `apply_heads` needs; none if the model passes all rows to its loss."""
        return ()

    def apply_heads(self, model: PreTrainedModel, outputs: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return logits `[L, B, Q, C]` and boxes `[L, B, Q, 4]` of all layers.

        `outputs` has the output of each module of `recorded_modules` in one forward pass, in their order: hidden states of
        layers, and for example reference points.
        """
        raise NotImplementedError(f"{self.name} records no modules")

    @abstractmethod
    def compiled_parts(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return the modules that are compiled one by one: backbone and layers."""

    def part_of(self, parameter: str) -> ModelPart:
        """Return the part of a parameter; in a ResNet its stage, as `backbone.stem`, `backbone.stage1`, ..."""
        for part in self.parts:
            if parameter.startswith(part.prefix):
                return replace(part, name=f"backbone{_stage(parameter, part)}") if part.name == "backbone" else part
        return ModelPart("other", "heads", "")

    def module(self, model: PreTrainedModel, path: str | None) -> nn.Module:
        """Return a module of the model. Raises InputError if the family has none."""
        if path is None:
            raise InputError(f"{self.name}: the model has no such module. Use a DETR instead.")
        module: nn.Module = model.get_submodule(path)
        return module

    def check_supports(self, operation: Operation) -> None:
        """Raise InputError unless the family supports an operation."""
        if operation not in self.supports:
            raise InputError(f"model: {self.name} does not support {operation}. Remove the setting, or use a DETR.")

    def num_queries(self, config: Any) -> int:
        """Return the number of queries of a model with this config."""
        queries: int = config.num_queries
        return queries

    def truncate_decoder(self, model: PreTrainedModel, number: int) -> None:
        """Remove the decoder layers after the first `number`, in place. Raises InputError if there are fewer."""
        self.check_supports("decoder_layers")
        raise NotImplementedError(f"{self.name} supports decoder_layers and must remove them")

    def layers(self, logits: Tensor, boxes: Tensor) -> Predictions:
        """Return the outputs of `apply_heads` as rows."""
        return Predictions(logits, boxes, self.activation)

    def final(self, logits: Tensor, boxes: Tensor) -> Predictions:
        """Return the final outputs of a model, `logits [B, Q, C]` and `boxes [B, Q, 4]`, as the only row."""
        return Predictions.from_layer(logits, boxes, self.activation)

    def top_detections(self, predictions: Predictions, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores, labels and query indices of the best detections of the last row.

        Each is `[B, N]`. Softmax: the best class of each query, N at most Q. Sigmoid: pairs of query and class, N at
        most Q times C. Equal scores are in the order of the queries.
        """
        if self.activation == "softmax":
            scores, labels = (values[-1] for values in predictions.best)
            queries = scores.argsort(dim=-1, descending=True, stable=True)[:, :count]
            return scores.gather(1, queries), labels.gather(1, queries), queries
        pairs = predictions.probabilities[-1].flatten(1)
        order = pairs.argsort(dim=-1, descending=True, stable=True)[:, :count]
        return pairs.gather(1, order), order % predictions.num_classes, order // predictions.num_classes


def _stage(parameter: str, part: ModelPart) -> str:
    """`.stem`, `.stage1`, ... of a parameter of a ResNet; empty for other backbones."""
    rest = parameter.removeprefix(part.prefix)
    if match := _NATIVE_STAGE.match(rest):
        return ".stem" if match["stage"] is None else f".stage{int(match['stage']) + 1}"
    if match := _TIMM_STAGE.match(rest):
        return ".stem" if match["stage"] is None else f".stage{match['stage']}"
    return ""
