"""Recipes: typed YAML files that describe a run."""

from detr_ft.recipe.recipe import *
