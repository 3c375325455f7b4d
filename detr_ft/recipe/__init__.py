"""Recipes: typed YAML files that describe a run."""

from detr_ft.recipe.recipe import DataSection, HubSection, ModelSection, Recipe

__all__ = ["DataSection", "HubSection", "ModelSection", "Recipe"]
