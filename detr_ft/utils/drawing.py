"""Boxes and names drawn on an image, readable at any size."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# A smaller longest side is enlarged by a whole factor first: text needs pixels.
_READABLE_SIDE = 320
_GOLDEN_ANGLE = 0.381966
_INK, _PAPER = (17, 17, 17), (255, 255, 255)

# Pillow's own font knows ASCII alone; matplotlib's has accents, Greek and Cyrillic too.
_FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")

Colour = tuple[int, int, int]
Corners = tuple[int, int, int, int]  # xyxy, whole pixels


def draw(
    image: Image.Image, boxes: Tensor, labels: Tensor, names: Sequence[str], scores: Tensor | None = None
) -> Image.Image:
    """A copy of an RGB image with `boxes [N, 4]` (xyxy, its pixels), named by `labels [N]`, with `scores [N]` if given.

    An image under 320 pixels is enlarged by a whole factor. The best box, given first, is drawn last, on top.
    """
    factor = max(1, -(-_READABLE_SIDE // max(image.size)))
    canvas = image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    side = max(canvas.size)
    line, font = max(2, round(side / 320)), ImageFont.truetype(str(_FONT), max(9, round(side / 64)))
    classes = labels.tolist()
    values = [None] * len(classes) if scores is None else scores.tolist()
    texts = [
        names[label] if score is None else f"{names[label]} {score:.2f}"
        for label, score in zip(classes, values, strict=True)
    ]
    corners = [_inside([side * factor for side in box], canvas.size) for box in boxes.tolist()]
    worst_first = range(len(classes))[::-1]
    for one in worst_first:
        pen.rectangle(corners[one], outline=class_colour(classes[one]), width=line)
    taken = list(corners)
    for one in worst_first:
        taken.append(_tag(pen, corners[one], taken, texts[one], class_colour(classes[one]), font))
    return canvas


def class_colour(label: int) -> Colour:
    """The colour of a class: the same in every picture, far from those of the classes before it."""
    hue = (0.58 + label * _GOLDEN_ANGLE) % 1.0
    value = (0.95, 0.75, 0.85)[label // 8 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _inside(box: Sequence[float], size: tuple[int, int]) -> Corners:
    """The box in whole pixels of the canvas, so that an edge outside is drawn along the border."""
    x0, x1 = sorted(min(max(round(side), 0), size[0] - 1) for side in (box[0], box[2]))
    y0, y1 = sorted(min(max(round(side), 0), size[1] - 1) for side in (box[1], box[3]))
    return x0, y0, x1, y1


def _tag(
    pen: ImageDraw.ImageDraw,
    box: Corners,
    taken: Sequence[Corners],
    text: str,
    colour: Colour,
    font: ImageFont.FreeTypeFont,
) -> Corners:
    """The name on a ground of the class's colour; where it stands.

    It is above the box, or below it where that covers less of what is `taken`, boxes and names; inside its top edge where
    neither has room.
    """
    ascent, descent = font.getmetrics()
    margin = max(2, round(font.size / 5))
    width, height = round(font.getlength(text)) + 2 * margin, ascent + descent
    x = max(0, min(box[0], pen.im.size[0] - width))
    outside = [y for y in (box[1] - height, box[3] + 1) if 0 <= y <= pen.im.size[1] - height]
    places = [(x, y, x + width - 1, y + height - 1) for y in outside or [box[1]]]
    place = min(places, key=lambda one: sum(_overlap(one, other) for other in taken))
    pen.rectangle(place, fill=colour)
    pen.text((x + margin, place[1]), text, fill=_text_colour(colour), font=font)
    return place


def _overlap(one: Corners, other: Corners) -> int:
    """Pixels that two rectangles share."""
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    return max(width, 0) * max(height, 0)


def _text_colour(ground: Colour) -> Colour:
    """Ink or paper, whichever stands out more on the ground."""
    return _INK if _luminance(ground) > 0.18 else _PAPER


def _luminance(colour: Colour) -> float:
    """Relative luminance 0 to 1 of an sRGB colour (WCAG 2)."""
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
