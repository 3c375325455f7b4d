"""Model families, one module each."""

from detr_ft.models.families.base import Family
from detr_ft.models.families.registry import FAMILIES, check_trainable, family_of, find_family

__all__ = ["FAMILIES", "Family", "check_trainable", "family_of", "find_family"]
