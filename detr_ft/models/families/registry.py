"""The list of families, and the family of a model or config."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedConfig

from detr_ft.errors import InputError
from detr_ft.models.families.base import Family
from detr_ft.models.families.detr import DETR
from detr_ft.models.families.table_transformer import TABLE_TRANSFORMER
from detr_ft.models.families.yolos import YOLOS

FAMILIES: tuple[Family, ...] = (
    DETR,
    TABLE_TRANSFORMER,
    YOLOS,
)

# Families without a description here: they score each class by a sigmoid and have no no-object class.
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
_EXAMPLE = "facebook/detr-resnet-50"
_UNDESCRIBED_BACKBONE = "model.backbone.conv_encoder.model"  # as in Table Transformer


def find_family(model: nn.Module | PreTrainedConfig) -> Family | None:
    """Return the family of a model or of its config, None if it is not in `FAMILIES`."""
    if isinstance(model, PreTrainedConfig):
        return family_of_type(model.model_type)
    return next((family for family in FAMILIES if isinstance(model, family.model_class)), None)


def family_of_type(model_type: object) -> Family | None:
    """Return the family with this `model_type`, as in config.json; None if it is not in `FAMILIES`."""
    return next((family for family in FAMILIES if family.model_type == model_type), None)


def backbone_path(config: PreTrainedConfig) -> str:
    """Return the path of a convolutional backbone, also in families that are not in `FAMILIES`."""
    family = find_family(config)
    return family.backbone if family and family.backbone else _UNDESCRIBED_BACKBONE


def family_of(model: nn.Module | PreTrainedConfig) -> Family:
    """Return the family of a model or of its config. Raises TypeError if it is not in `FAMILIES`."""
    family = find_family(model)
    if family is None:
        classes = ", ".join(one.model_class.__name__ for one in FAMILIES)
        raise TypeError(
            f"model must be one of {classes}, got {type(model).__name__}. Pass the model itself, before wrapping it for "
            "distribution or compilation."
        )
    return family


def check_trainable(checkpoint: str, config: PreTrainedConfig) -> None:
    """Raise InputError for a config whose family recipes cannot train."""
    family = find_family(config)
    if family is not None and "recipes" in family.supports:
        return
    trainable = " and ".join(one.name for one in FAMILIES if "recipes" in one.supports)
    if family is not None:
        raise InputError(
            f"{checkpoint}: recipes cannot train {family.name}, only {trainable}. Use "
            "attach_criterion(model, criterion) in a training loop of your own."
        )
    kind = config.model_type
    if kind in _SIGMOID:
        raise InputError(
            f"{checkpoint}: {_SIGMOID[kind]} is not supported yet: it scores each class by a sigmoid, without no-object. "
            f"Use {trainable}, for example {_EXAMPLE}."
        )
    raise InputError(f"{checkpoint}: a {kind!r} model is not supported. Use {trainable}, for example {_EXAMPLE}.")
