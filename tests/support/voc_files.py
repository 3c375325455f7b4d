"""Files of Pascal VOC."""

from __future__ import annotations


def voc_xml(
    *objects: tuple[object, ...], filename: str = "", size: str = "<width>40</width><height>30</height>"
) -> str:
    """Return the XML file of an image; an object is a name and its corners."""
    rows = [
        f"<object><name>{name}</name><difficult>1</difficult>"
        f"<truncated>{int(x0 == x1)}</truncated><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, x0, y0, x1, y1 in objects
    ]
    return f"<annotation><filename>{filename}</filename><size>{size}</size>{''.join(rows)}</annotation>"
