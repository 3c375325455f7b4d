"""The list of label formats that are written, and the help and errors that are generated from it.

Importing this module imports none of the writers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

from detr_ft.data.writers.base import LabeledImage, Writer
from detr_ft.errors import InputError


@dataclass(frozen=True)
class LabelFormat:
    """A format of labels, the noun phrase of its `help`, and the module with its `write`.

    Its files are in a subfolder of its name, or `at_top`, in the folder itself.
    """

    name: str
    help: str
    module: str
    at_top: bool = False


LABEL_FORMATS = (
    LabelFormat("coco", "predictions.json (COCO results)", "detr_ft.data.writers.coco", at_top=True),
    LabelFormat("yolo", "label files", "detr_ft.data.writers.yolo"),
    LabelFormat("labelme", "a JSON file for each image", "detr_ft.data.writers.labelme"),
    LabelFormat("labelstudio", "tasks with predictions", "detr_ft.data.writers.labelstudio"),
    LabelFormat("cvat", "annotations.xml", "detr_ft.data.writers.cvat"),
    LabelFormat("csv", "a table", "detr_ft.data.writers.csv_table"),
)
_BY_NAME = {format.name: format for format in LABEL_FORMATS}


def label_formats(names: Iterable[str]) -> tuple[LabelFormat, ...]:
    """Return the formats of these names, each once. Raises InputError for an unknown name or none."""
    wanted = list(dict.fromkeys(name.strip().lower() for name in names))
    unknown = [name for name in wanted if name not in _BY_NAME]
    if unknown or not wanted:
        got = ", ".join(unknown) or "none"
        raise InputError(f"format (--format): must be some of {', '.join(_BY_NAME)}, got {got}. Choose one or several")
    return tuple(_BY_NAME[name] for name in wanted)


def label_formats_help() -> str:
    """Return the formats with their help, for the help of a command."""
    listed = [f"{format.name} ({format.help})" for format in LABEL_FORMATS]
    return f"{', '.join(listed[:-1])} or {listed[-1]}"


def write_labels(format: LabelFormat, images: Sequence[LabeledImage], names: Sequence[str], folder: Path) -> Path:
    """Write images with boxes of the classes `names` below a folder, and return the main file."""
    writer = cast(Writer, import_module(format.module))
    return writer.write(images, names, folder if format.at_top else folder / format.name)
