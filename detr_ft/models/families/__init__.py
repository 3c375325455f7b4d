"""Model families, one module each."""

from detr_ft.models.families.base import BACKBONE_PATTERN, Family
from detr_ft.models.families.registry import (
    FAMILIES,
    backbone_path,
    check_trainable,
    family_of,
    family_of_type,
    find_family,
)

__all__ = [
    "BACKBONE_PATTERN",
    "FAMILIES",
    "Family",
    "backbone_path",
    "check_trainable",
    "family_of",
    "family_of_type",
    "find_family",
]
