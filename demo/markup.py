"""Fragments of HTML and SVG: tables, and images with boxes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image
from torch import Tensor

from detr_ft.utils.drawing import class_color, jpeg_data_uri

_JPEG_QUALITY = 85


def fit(size: tuple[int, int], longest_edge: int) -> tuple[int, int]:
    """Return (width, height) scaled to a longest edge, at least 1 pixel each."""
    scale = longest_edge / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def to_data_uri(image: Image.Image, size: tuple[int, int]) -> str:
    """Return an image, resized, as a JPEG data URI."""
    return jpeg_data_uri(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), _JPEG_QUALITY)


def from_data_uri(uri: str) -> Image.Image:
    """Return the image of a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def css_color(label: int) -> str:
    """Return the color of a class in CSS notation."""
    return "#{:02x}{:02x}{:02x}".format(*class_color(label))


def svg_image(uri: str, size: tuple[int, int], shapes: Sequence[str], description: str) -> str:
    """Return an image of (width, height) with SVG shapes over it; the description is for screen readers."""
    return (
        f'<svg class="scene" viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{escape(description)}">'
        f'<image href="{uri}" width="{size[0]}" height="{size[1]}"/>{"".join(shapes)}</svg>'
    )


def rectangle(box: Tensor, kind: str, title: str) -> str:
    """Return a box, xyxy, of a CSS class, with a title that is shown at the pointer."""
    x0, y0, x1, y1 = (float(side) for side in box)
    return (
        f'<rect class="{kind}" x="{x0:.1f}" y="{y0:.1f}" width="{max(0.0, x1 - x0):.1f}" height="{max(0.0, y1 - y0):.1f}">'
        f"<title>{escape(title)}</title></rect>"
    )


def header_row(titles: Sequence[str]) -> str:
    """Return the row of column titles."""
    return "<tr>" + "".join(f'<th scope="col">{escape(title)}</th>' for title in titles) + "</tr>"


def table(caption: str, header: str, rows: Sequence[str], kind: str = "") -> str:
    """Return a table with a caption; the CSS class `heat` colors cells by their variable `--heat`, 0 to 1."""
    return (
        f'<figure class="captioned"><figcaption>{escape(caption)}</figcaption><div class="wide">'
        f'<table class="{kind}" aria-label="{escape(caption)}"><thead>{header}</thead><tbody>{"".join(rows)}</tbody></table></div></figure>'
    )
