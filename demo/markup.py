"""Fragments of HTML and SVG: tables, and pictures with boxes over them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image
from torch import Tensor

from detr_ft.report.pictures import data_uri
from detr_ft.utils.drawing import class_color

JPEG_QUALITY = 85


def embedded(image: Image.Image) -> str:
    """A picture as an address that holds it."""
    return data_uri(image, JPEG_QUALITY)


def opened(address: str) -> Image.Image:
    """The picture that an address holds."""
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def css_color(label: int) -> str:
    """The color of a class."""
    return "#{:02x}{:02x}{:02x}".format(*class_color(label))


def scene(address: str, shape: tuple[int, int], parts: Sequence[str], told: str) -> str:
    """The picture at an address, of a width and height, with shapes over it; `told` is what it says to who can't see it."""
    return (
        f'<svg class="scene" viewBox="0 0 {shape[0]} {shape[1]}" role="img" aria-label="{escape(told)}">'
        f'<image href="{address}" width="{shape[0]}" height="{shape[1]}"/>{"".join(parts)}</svg>'
    )


def rectangle(box: Tensor, kind: str, title: str) -> str:
    """A box, xyxy, that says its title at the pointer."""
    x0, y0, x1, y1 = (float(side) for side in box)
    return (
        f'<rect class="{kind}" x="{x0:.1f}" y="{y0:.1f}" width="{max(0.0, x1 - x0):.1f}" height="{max(0.0, y1 - y0):.1f}">'
        f"<title>{escape(title)}</title></rect>"
    )


def head(titles: Sequence[str]) -> str:
    """The row of titles."""
    return "<tr>" + "".join(f'<th scope="col">{escape(title)}</th>' for title in titles) + "</tr>"


def table(caption: str, titles: str, rows: Sequence[str], kind: str = "") -> str:
    """A table with a caption; `heat` colours cells by their `--heat`."""
    return (
        f'<figure class="told"><figcaption>{escape(caption)}</figcaption><div class="wide">'
        f'<table class="{kind}" aria-label="{escape(caption)}"><thead>{titles}</thead><tbody>{"".join(rows)}</tbody></table></div></figure>'
    )
