"""Recipes: typed YAML files that describe a run."""

from detr_ft.recipe.load import LoadedRecipe, build, from_values, load, load_recipe, read_recipe
from detr_ft.recipe.recipe import DataSection, HubSection, Recipe

__all__ = [
    "DataSection",
    "HubSection",
    "LoadedRecipe",
    "Recipe",
    "build",
    "from_values",
    "load",
    "load_recipe",
    "read_recipe",
]
