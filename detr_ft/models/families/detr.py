"""DETR (Carion et al., ECCV 2020)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DetrConfig, DetrForObjectDetection, PreTrainedModel
from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d

from detr_ft.criterion import detr_criterion
from detr_ft.errors import InputError
from detr_ft.models.families.base import Family, LossInputs, ModelPart
from detr_ft.structures import Predictions


@dataclass(frozen=True, kw_only=True)
class DetrFamily(Family):
    """Families with the architecture of DETR."""

    def predictions(self, outputs: LossInputs) -> Predictions:
        """Return the rows of all decoder layers."""
        if outputs.layer_logits is None or outputs.layer_boxes is None:
            raise ValueError("layer_logits and layer_boxes must be given: attach_criterion records them")
        # The final row is the one that the model returns, whatever computed the others.
        return self.layers(
            torch.cat([outputs.layer_logits[:-1], outputs.logits[None]]),
            torch.cat([outputs.layer_boxes[:-1], outputs.boxes[None]]),
        )

    def recorded_modules(self, model: Any) -> Sequence[nn.Module]:
        """Return the decoder layers, whose outputs are not normalized yet."""
        layers: Sequence[nn.Module] = model.model.decoder.layers
        return layers

    def apply_heads(self, model: Any, outputs: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Apply the final norm of the decoder and the heads."""
        hidden = torch.stack(
            [output if isinstance(output, Tensor) else output[0] for output in outputs]
        )  # [L, B, Q, D]
        normed = model.model.decoder.layernorm(hidden)
        return model.class_labels_classifier(normed), model.bbox_predictor(normed).sigmoid()

    def truncate_decoder(self, model: Any, number: int) -> None:
        """Remove layers from the module and the config."""
        self.check_supports("decoder_layers")
        layers = model.model.decoder.layers
        if not 1 <= number <= len(layers):
            raise InputError(
                f"model.decoder_layers: must be from 1 to {len(layers)}, the checkpoint's number, got {number}."
            )
        model.model.decoder.layers = layers[:number]
        model.config.decoder_layers = number

    def compiled_parts(self, model: Any) -> list[nn.Module]:
        """Return backbone, encoder layers and decoder layers."""
        return [model.model.backbone, *model.model.encoder.layers, *model.model.decoder.layers]

    def config(self, architecture: Mapping[str, Any], names: Sequence[str]) -> DetrConfig:
        """Return the config with the arguments of `DetrConfig` and classes; its backbone is a native one.

        Raises InputError for fields that `DetrConfig` does not have, which transformers silently accepts.
        """
        known = DetrConfig(backbone_config={"model_type": "resnet"}).to_dict()
        unknown = sorted(set(architecture) - set(known))
        if unknown:
            raise InputError([f"model.architecture.{key}: DetrConfig has no such field. Remove it." for key in unknown])
        labels = dict(enumerate(names))
        return DetrConfig(**architecture, id2label=labels, label2id={name: index for index, name in labels.items()})

    def square_processor(self, longest_edge: int) -> Any:
        """Return a processor that pads images to a square with sides of `longest_edge` pixels."""
        square = {"height": longest_edge, "width": longest_edge}
        messages = logging.getLogger("transformers.utils.import_utils")
        level = messages.level
        messages.setLevel(logging.ERROR)  # importing it without torchvision warns that it uses PIL, as intended here
        try:
            from transformers import DetrImageProcessor
        finally:
            messages.setLevel(level)
        return DetrImageProcessor(size={"max_height": longest_edge, "max_width": longest_edge}, pad_size=square)

    def draw_weights(self, model: PreTrainedModel) -> None:
        """Draw random weights as the authors do (facebookresearch/detr, `Transformer._reset_parameters`).

        transformers draws matrices and queries with a standard deviation of 0.02, made to be overwritten by a checkpoint;
        from such a start a small DETR learns slowly.
        """
        any_model: Any = model
        for parameter in (*any_model.model.encoder.parameters(), *any_model.model.decoder.parameters()):
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(any_model.model.query_position_embeddings.weight)
        heads = (any_model.class_labels_classifier, *any_model.bbox_predictor.layers)
        for module in (any_model.model.input_projection, *heads):
            module.reset_parameters()


DETR = DetrFamily(
    name="DETR",
    model_type="detr",
    model_class=DetrForObjectDetection,
    activation="softmax",
    class_layers=("class_labels_classifier",),
    parts=(
        ModelPart("backbone", "backbone", "model.backbone."),
        ModelPart("input_projection", "encoder", "model.input_projection."),
        ModelPart("queries", "decoder", "model.query_position_embeddings."),
        ModelPart("encoder", "encoder", "model.encoder."),
        ModelPart("decoder", "decoder", "model.decoder."),
        ModelPart("class_head", "heads", "class_labels_classifier."),
        ModelPart("box_head", "heads", "bbox_predictor."),
    ),
    supports=frozenset(
        {
            "recipes", "num_queries", "decoder_layers", "lora", "attention", "export",
            "gradient_checkpointing", "fused_norms", "no_sync", "cuda_graphs",
        }
    ),
    images="masked",
    default_criterion=detr_criterion,
    backbone="model.backbone.model",
    frozen_norm=DetrFrozenBatchNorm2d,
    projection="model.input_projection",
    query_embedding="model.query_position_embeddings",
    # Attention and feed-forward layers: a low rank in more kinds of matrices is better than a high one in few (Hu et al.,
    # LoRA, ICLR 2022, section 7.1).
    freeze=("backbone.stem", "backbone.stage1"),
    lora_layers=r"model\.(encoder|decoder)\.layers\..*\.(q_proj|k_proj|v_proj|o_proj|out_proj|fc1|fc2)",
)  # fmt: skip
