"""Build a model from a config, with random or backbone weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor

from detr_ft.errors import InputError
from detr_ft.models.checkpoint_source import _LOAD_ERRORS, _explain, _first_line
from detr_ft.models.timm import keep_activations


def build_model(
    architecture: Mapping[str, Any], names: list[str], longest_edge: int, backbone: str | None = None
) -> tuple[DetrForObjectDetection, Any]:
    """A model of random weights with a native backbone, for the classes `names`; its processor pads images to a square.

    `architecture` holds what `DetrConfig` takes; its `backbone_config` names a `model_type`. `backbone` is a checkpoint
    whose weights the backbone starts from. Raises InputError for what transformers refuses, and for a backbone that does
    not fit whole.
    """
    # transformers takes a misspelt field without a word.
    known = DetrConfig(backbone_config={"model_type": "resnet"}).to_dict()
    unknown = sorted(set(architecture) - set(known))
    if unknown:
        raise InputError([f"model.architecture: DetrConfig has no field {key!r}" for key in unknown])
    labels = dict(enumerate(names))
    try:
        config = DetrConfig(**architecture, id2label=labels, label2id={name: index for index, name in labels.items()})
        keep_activations(config)
        model = DetrForObjectDetection(config)
    except (TypeError, ValueError, KeyError, AttributeError, StrictDataclassError) as error:
        raise InputError(f"model.architecture: {_first_line(error)}") from error
    _original_start(model)
    if backbone is not None:
        _load_backbone(model, backbone)
    return model, square_processor(longest_edge)


def square_processor(longest_edge: int) -> Any:
    """Return a processor that pads images to a square with sides of `longest_edge` pixels.

    A small model that learns positions from the start needs the border of its images to stay where it is.
    """
    square = {"height": longest_edge, "width": longest_edge}
    return DetrImageProcessor(size={"max_height": longest_edge, "max_width": longest_edge}, pad_size=square)


def _original_start(model: DetrForObjectDetection) -> None:
    """Random weights as the authors draw them (facebookresearch/detr, `Transformer._reset_parameters`).

    transformers draws matrices and queries with a deviation of 0.02, which is right for what will be overwritten by a
    checkpoint; from such a start a small DETR learns slowly.
    """
    for parameter in (*model.model.encoder.parameters(), *model.model.decoder.parameters()):
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
    nn.init.normal_(model.model.query_position_embeddings.weight)
    for module in (model.model.input_projection, model.class_labels_classifier, *model.bbox_predictor.layers):
        module.reset_parameters()


def _load_backbone(model: DetrForObjectDetection, checkpoint: str) -> None:
    target = model.model.backbone.model
    try:
        # The class by name: AutoBackbone asks the Hub even for a folder, and takes what the Hub lacks for timm's.
        state = type(target).from_pretrained(checkpoint, use_safetensors=True).state_dict()
    except _LOAD_ERRORS as error:
        raise InputError(f"model.backbone: {_explain(checkpoint, error)}") from error
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"model.backbone: {checkpoint} does not fit model.architecture.backbone_config: {_first_line(error)}"
        ) from error
