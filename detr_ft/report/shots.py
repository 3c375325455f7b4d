"""Pictures of the page: a photo, and over it the outlines of what is there and of what was found, which can be switched."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

MOST = 30
_BYTES = 3_200_000
# Longest side and JPEG quality, tried in turn until all pictures together are small enough.
_SIZES = ((720, 85), (560, 80), (420, 75), (320, 65), (240, 50), (160, 40))


@dataclass(frozen=True)
class Outline:
    """A box xyxy in pixels of the picture, the name of its class, its colour, and the score of one that was found."""

    box: tuple[float, float, float, float]
    name: str
    colour: str
    score: float | None = None


@dataclass(frozen=True)
class Shot:
    """A picture under the heading that it belongs to."""

    heading: str
    caption: str
    picture: Image.Image
    truth: Sequence[Outline]
    found: Sequence[Outline]


@dataclass(frozen=True)
class Shown:
    """A shot as the page takes it: a data URI, the size of the picture, and lines and text as thick as suits it."""

    shot: Shot
    uri: str
    width: int
    height: int
    line: float
    text: float


def shown(shots: Sequence[Shot]) -> dict[str, list[Shown]]:
    """The shots by heading, as large as the room for all of them allows."""
    chosen, uris = shots[:MOST], [""]
    for side, quality in _SIZES:
        uris = [_uri(shot.picture, side, quality) for shot in chosen]
        if sum(map(len, uris)) <= _BYTES:
            break
    found: dict[str, list[Shown]] = {}
    for shot, uri in zip(chosen, uris, strict=False):
        width, height = shot.picture.size
        one = Shown(shot, uri, width, height, max(width, height) / 260, max(width, height) / 30)
        found.setdefault(shot.heading, []).append(one)
    return found


def _uri(image: Image.Image, side: int, quality: int) -> str:
    picture = image.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
