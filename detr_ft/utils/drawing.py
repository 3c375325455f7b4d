"""Boxes and class names drawn on an image, readable at any size."""

from __future__ import annotations

import base64
import colorsys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# A smaller longest side is enlarged by a whole factor first: text needs pixels.
_READABLE_SIDE_PX = 320
_GOLDEN_ANGLE = 0.381966
_DARK, _LIGHT = (17, 17, 17), (255, 255, 255)

# Pillow's own font has only ASCII; matplotlib's has accents, Greek and Cyrillic.
_FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")

_SHOWN_SIDE_PX, _LINE_PX, _NAME_PX = 640, 2, 10

Color = tuple[int, int, int]
Corners = tuple[int, int, int, int]  # xyxy, whole pixels


def draw(
    image: Image.Image,
    boxes: Tensor,
    labels: Tensor,
    names: Sequence[str],
    scores: Tensor | None = None,
    shown_side: int = _SHOWN_SIDE_PX,
) -> Image.Image:
    """Return a copy of an RGB image with `boxes [N, 4]` (xyxy, its pixels) and the names of their classes.

    Classes are `labels [N]`; names are followed by `scores [N]` if given. An image under 320 pixels is enlarged by a
    whole factor. The best box, given first, is drawn last, on top. Lines and names have their usual size where the longest
    side is shown at `shown_side` pixels.
    """
    factor = max(1, -(-_READABLE_SIDE_PX // max(image.size)))
    canvas = image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    side = max(canvas.size)
    line = max(2, round(side / shown_side * _LINE_PX))
    font = ImageFont.truetype(str(_FONT), max(9, round(side / shown_side * _NAME_PX)))
    classes = labels.tolist()
    values = [None] * len(classes) if scores is None else scores.tolist()
    texts = [
        names[label] if score is None else f"{names[label]} {score:.2f}"
        for label, score in zip(classes, values, strict=True)
    ]
    corners = [_clipped([side * factor for side in box], canvas.size) for box in boxes.tolist()]
    worst_first = range(len(classes))[::-1]
    for index in worst_first:
        pen.rectangle(corners[index], outline=class_color(classes[index]), width=line)
    occupied = list(corners)
    for index in worst_first:
        occupied.append(_draw_name(pen, corners[index], occupied, texts[index], class_color(classes[index]), font))
    return canvas


def jpeg_data_uri(picture: Image.Image, quality: int) -> str:
    """Return a picture as a JPEG data URI."""
    stream = BytesIO()
    # Full color resolution, or thin colored lines would blur. Not optimized: Pillow's buffer is then too small for noise.
    picture.save(stream, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def class_color(label: int) -> Color:
    """Return the color of a class: the same in every picture, far from those of the classes before it."""
    hue = (0.58 + label * _GOLDEN_ANGLE) % 1.0
    value = (0.95, 0.75, 0.85)[label // 8 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _clipped(box: Sequence[float], size: tuple[int, int]) -> Corners:
    """Return the box in whole pixels of the canvas; an edge outside is drawn along the border."""
    x0, x1 = sorted(min(max(round(side), 0), size[0] - 1) for side in (box[0], box[2]))
    y0, y1 = sorted(min(max(round(side), 0), size[1] - 1) for side in (box[1], box[3]))
    return x0, y0, x1, y1


def _draw_name(
    pen: ImageDraw.ImageDraw,
    box: Corners,
    occupied: Sequence[Corners],
    text: str,
    color: Color,
    font: ImageFont.FreeTypeFont,
) -> Corners:
    """Draw the name on a background of the color of its class, and return its rectangle.

    It is above the box, or below if it covers less of the `occupied` boxes and names there, or inside its top edge if
    neither has room.
    """
    ascent, descent = font.getmetrics()
    margin = max(2, round(font.size / 5))
    width, height = round(font.getlength(text)) + 2 * margin, ascent + descent
    x = max(0, min(box[0], pen.im.size[0] - width))
    outside = [y for y in (box[1] - height, box[3] + 1) if 0 <= y <= pen.im.size[1] - height]
    candidates = [(x, y, x + width - 1, y + height - 1) for y in outside or [box[1]]]
    rectangle = min(candidates, key=lambda candidate: sum(_overlap(candidate, other) for other in occupied))
    pen.rectangle(rectangle, fill=color)
    pen.text((x + margin, rectangle[1]), text, fill=_text_color(color), font=font)
    return rectangle


def _overlap(first: Corners, second: Corners) -> int:
    """Return the number of pixels in both rectangles."""
    width = min(first[2], second[2]) - max(first[0], second[0]) + 1
    height = min(first[3], second[3]) - max(first[1], second[1]) + 1
    return max(width, 0) * max(height, 0)


def _text_color(background: Color) -> Color:
    """Return dark or light, whichever has more contrast with the background."""
    return _DARK if _luminance(background) > 0.18 else _LIGHT


def _luminance(color: Color) -> float:
    """Return the relative luminance 0 to 1 of an sRGB color (WCAG 2)."""
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in color)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
