"""Write tasks for Label Studio, each with an image and a prediction, and their labeling interface."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from detr_ft.data.writers.base import LabeledBox, LabeledImage, unique_classes, write_text

_LOCAL_FILES = "/data/local-files/?d="  # files of local storage, by their path below its folder
_CONTROL, _IMAGE = "label", "image"  # the names of both parts of the labeling interface


def write(images: Sequence[LabeledImage], names: Sequence[str], folder: Path) -> Path:
    """Write `tasks.json` and `labeling-interface.xml`.

    The image of a task is a file of Label Studio's local storage, whose folder is the common folder of the images, or a
    URL. The score of a prediction is that of its least certain box, by which Label Studio can sort tasks.
    """
    write_text(folder / "labeling-interface.xml", _interface(unique_classes(names)))
    tasks = [_task(image.clipped()) for image in images]
    return write_text(folder / "tasks.json", json.dumps(tasks, indent=1, ensure_ascii=False))


def _task(image: LabeledImage) -> dict[str, object]:
    address = image.source if "://" in image.source else f"{_LOCAL_FILES}{quote(image.name)}"
    scores = [box.score for box in image.boxes if box.score is not None]
    prediction = {
        "model_version": "detr-ft",
        **({"score": min(scores)} if scores else {}),
        "result": [_region(box, image, f"box-{number}") for number, box in enumerate(image.boxes, start=1)],
    }
    return {"data": {_IMAGE: address}, "predictions": [prediction]}


def _region(box: LabeledBox, image: LabeledImage, region_id: str) -> dict[str, object]:
    x, y, w, h = box.box
    value = {
        "x": 100 * x / image.width,
        "y": 100 * y / image.height,
        "width": 100 * w / image.width,
        "height": 100 * h / image.height,
        "rotation": 0,
        "rectanglelabels": [box.name],
    }
    return {
        "id": region_id,
        "type": "rectanglelabels",
        "from_name": _CONTROL,
        "to_name": _IMAGE,
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "value": value,
        **({} if box.score is None else {"score": box.score}),
    }


def _interface(names: Sequence[str]) -> str:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", {"name": _IMAGE, "value": f"${_IMAGE}"})
    control = ElementTree.SubElement(view, "RectangleLabels", {"name": _CONTROL, "toName": _IMAGE})
    for name in names:
        ElementTree.SubElement(control, "Label", {"value": name})
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"
