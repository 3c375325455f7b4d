"""Write CVAT's own XML, "CVAT for images 1.1", for a task with the same images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from detr_ft.data.writers.base import LabeledImage, unique_classes, write_text


def write(images: Sequence[LabeledImage], names: Sequence[str], folder: Path) -> Path:
    """Write `annotations.xml`; the format has no scores."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for name in unique_classes(names):
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "type").text = "rectangle"
        ElementTree.SubElement(label, "attributes")
    for image in images:
        _add(root, image.clipped())
    ElementTree.indent(root)
    declaration = '<?xml version="1.0" encoding="utf-8"?>\n'
    return write_text(folder / "annotations.xml", f"{declaration}{ElementTree.tostring(root, encoding='unicode')}\n")


def _add(root: ElementTree.Element, image: LabeledImage) -> None:
    stated = {"id": image.image_id, "name": image.name, "width": image.width, "height": image.height}
    element = ElementTree.SubElement(root, "image", {key: str(value) for key, value in stated.items()})
    for box in image.boxes:
        sides = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(repr, box.corners), strict=True))
        ElementTree.SubElement(
            element, "box", {"label": box.name, "source": "auto", "occluded": "0", **sides, "z_order": "0"}
        )
