"""The command `detr-ft`."""

from detr_ft.cli.app import app, main

__all__ = ["app", "main"]
