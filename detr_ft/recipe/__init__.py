"""Recipes: typed YAML files that describe a run."""

from detr_ft.recipe.load import BuiltRecipe, build_file, build_recipe, build_values, load_recipe, read_recipe
from detr_ft.recipe.recipe import DataSection, HubSection, Recipe

__all__ = [
    "BuiltRecipe",
    "DataSection",
    "HubSection",
    "Recipe",
    "build_file",
    "build_recipe",
    "build_values",
    "load_recipe",
    "read_recipe",
]
