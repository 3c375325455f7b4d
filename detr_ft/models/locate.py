"""The place of a checkpoint: a folder, the package or the Hub. Nothing here loads torch."""

from __future__ import annotations

import difflib
from pathlib import Path

from detr_ft.errors import InputError
from detr_ft.utils.assets import EMBEDDED, embedded_checkpoint


def is_on_hub(checkpoint: str) -> bool:
    """Return whether a valid checkpoint is a repository of the Hub rather than local files."""
    return not checkpoint.startswith("embedded:") and not Path(checkpoint).is_dir()


def resolve(checkpoint: str) -> str:
    """Return a folder or repository name. Raises InputError for a folder without a checkpoint."""
    if checkpoint.startswith("embedded:"):
        name = checkpoint.removeprefix("embedded:")
        if name not in EMBEDDED:
            raise InputError(f"{checkpoint}: no such embedded checkpoint. Use one of {', '.join(EMBEDDED)}.")
        return str(embedded_checkpoint(name))
    folder = Path(checkpoint)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"{checkpoint}: no config.json in this folder. {_folder_of_a_model(folder)}")
        return checkpoint
    # `runs/mine` could be a repository too, but not if there is a folder `runs`.
    if (
        folder.exists()
        or checkpoint.count("/") != 1
        or checkpoint.startswith((".", "~", "/"))
        or folder.parent.is_dir()
    ):
        raise InputError(
            f"{checkpoint}: no such folder{_similar_folder(folder)} Write a model of the Hub as owner/name."
        )
    return checkpoint


def _folder_of_a_model(folder: Path) -> str:
    """Return a remedy with the first folder of a model inside, such as the runs of several seeds."""
    inside = sorted(child.parent for child in folder.glob("*/config.json"))
    return f"Give a folder inside it, such as {inside[0]}" if inside else "Give the folder of a saved model."


def _similar_folder(folder: Path) -> str:
    names = sorted(path.name for path in folder.parent.iterdir() if path.is_dir()) if folder.parent.is_dir() else []
    close = difflib.get_close_matches(folder.name, names, n=1)
    return f"; did you mean {folder.parent / close[0]}?" if close else "."
