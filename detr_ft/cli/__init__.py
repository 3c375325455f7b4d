"""The command `detr-ft`."""

from detr_ft.cli.app import main

__all__ = ["main"]
