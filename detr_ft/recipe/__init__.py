"""Recipes: typed YAML files that describe a run."""
