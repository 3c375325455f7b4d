"""Recipes: typed YAML files that describe a run."""

from detr_ft.recipe.recipe import DataSection, HubSection, Recipe, load_recipe, read_recipe

__all__ = ["DataSection", "HubSection", "Recipe", "load_recipe", "read_recipe"]
