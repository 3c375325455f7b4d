"""Build a DETR from a config, with random or backbone weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

from detr_ft.errors import InputError
from detr_ft.models.families.detr import DETR
from detr_ft.models.load import LOAD_ERRORS, commit_of, describe_load_error, first_line, read_config
from detr_ft.models.timm import freeze_timm_norms
from detr_ft.models.weights import read_weights
from detr_ft.utils.progress import library_bars_hidden


def build_model(
    architecture: Mapping[str, Any], names: list[str], longest_edge: int, backbone: str | None = None
) -> tuple[PreTrainedModel, Any]:
    """Build a model with random weights and a native backbone for the classes `names`, and its processor.

    `architecture` has the arguments of `DetrConfig`; its `backbone_config` has a `model_type`. `backbone` is a checkpoint
    for the weights of the backbone. The processor pads images to a square. Raises InputError for arguments that
    transformers refuses, and for a backbone whose weights do not fit.
    """
    try:
        config = DETR.config(architecture, names)
        freeze_timm_norms(config)
        model = DETR.model_class(config)
    except (TypeError, ValueError, KeyError, AttributeError, StrictDataclassError) as error:
        raise InputError(f"model.architecture: {first_line(error)}") from error
    DETR.draw_weights(model)
    if backbone is not None:
        _load_backbone(model, backbone)
    return model, square_processor(longest_edge)


def square_processor(longest_edge: int) -> Any:
    """Return a processor that pads images to a square with sides of `longest_edge` pixels.

    A small model that learns positions from the start needs the border of its images to stay where it is.
    """
    return DETR.square_processor(longest_edge)


def _load_backbone(model: PreTrainedModel, checkpoint: str) -> None:
    target: Any = DETR.module(model, DETR.backbone)
    kind = type(target)
    try:
        revision = commit_of(checkpoint)
        with library_bars_hidden():
            config = read_config(checkpoint, revision)
            if not isinstance(config, kind.config_class):
                raise InputError(f"{checkpoint}: must be a {kind.config_class.model_type}, got a {config.model_type}")
            # By the class itself: AutoBackbone sends requests to the Hub even for a folder, and uses timm for unknown names.
            state = kind.from_pretrained(
                None, config=config, state_dict=read_weights(checkpoint, revision)
            ).state_dict()
    except InputError as error:
        raise InputError([f"model.backbone: {problem}" for problem in error.problems]) from error
    except LOAD_ERRORS as error:
        raise InputError(f"model.backbone: {describe_load_error(checkpoint, error)}") from error
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"model.backbone: {checkpoint} does not fit model.architecture.backbone_config: {first_line(error)}"
        ) from error
