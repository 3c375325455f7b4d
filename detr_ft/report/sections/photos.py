"""Section of photos: objects and detections as outlines over them, which can be switched off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from detr_ft.report.content import RunReport, Section
from detr_ft.report.pictures import AnnotatedPhoto, data_uris

_MAX_PHOTOS = 30
_MAX_BYTES = 3_200_000
_SIZES = ((720, 85), (560, 80), (420, 75), (320, 65), (240, 50), (160, 40))  # longest side in pixels, JPEG quality


@dataclass(frozen=True)
class _RenderedPhoto:
    """A photo as a data URI, its size, and the thickness of lines and height of text in its pixels."""

    photo: AnnotatedPhoto
    uri: str
    width: int
    height: int
    line: float
    text: float


def _photos(report: RunReport) -> dict[str, Any] | None:
    if report.evaluation is None or not report.evaluation.photos:
        return None
    photos = report.evaluation.photos[:_MAX_PHOTOS]
    uris = data_uris(lambda side: [_resized(photo.image, side) for photo in photos], _SIZES, _MAX_BYTES)
    groups: dict[str, list[_RenderedPhoto]] = {}
    for photo, uri in zip(photos, uris, strict=False):
        width, height = photo.image.size
        longest = max(width, height)
        rendered = _RenderedPhoto(photo, uri, width, height, longest / 260, longest / 30)
        groups.setdefault(photo.heading, []).append(rendered)
    return {"groups": groups}


def _resized(image: Image.Image, side: int) -> Image.Image:
    copy = image.convert("RGB")
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    return copy


PHOTOS = Section(
    "Photos",
    """
<p class="note">Dashed: objects. Solid: detections above the thresholds of the classes, with their scores; colors are classes. Click a photo to enlarge it.</p>
<div class="switches">
<label><input type="checkbox" value="objects" checked> objects</label>
<label><input type="checkbox" value="detections" checked> detections</label>
</div>
{% for heading, group in groups.items() %}
<h3>{{ heading }}</h3>
<div class="photos">
{% for one in group %}
<figure class="card"><button type="button" aria-label="Enlarge {{ one.photo.caption }}"><span class="frame" style="display:block"><img src="{{ one.uri }}" alt="{{ one.photo.caption }}">
<svg viewBox="0 0 {{ one.width }} {{ one.height }}" aria-hidden="true" style="--text: {{ one.text | round(1) }}px">
{% for kind, outlines in (("objects", one.photo.objects), ("detections", one.photo.detections)) %}
<g class="{{ kind }}">
{% for outline in outlines %}
{% set x, y, right, bottom = outline.box %}
<rect class="case" x="{{ x | round(1) }}" y="{{ y | round(1) }}" width="{{ (right - x) | round(1) }}" height="{{ (bottom - y) | round(1) }}" stroke-width="{{ (2 * one.line) | round(2) }}"/><rect x="{{ x | round(1) }}" y="{{ y | round(1) }}" width="{{ (right - x) | round(1) }}" height="{{ (bottom - y) | round(1) }}" stroke="{{ outline.color }}" stroke-width="{{ one.line | round(2) }}"{% if kind == "objects" %} stroke-dasharray="{{ (4 * one.line) | round(1) }} {{ (3 * one.line) | round(1) }}"{% endif %}><title>{{ outline.name }}{% if outline.score is not none %} {{ "%.2f" | format(outline.score) }}{% endif %}</title></rect>
{% if outline.score is not none %}
<text{% if x + right > 1.2 * one.width %} text-anchor="end"{% endif %} x="{{ (right if x + right > 1.2 * one.width else x) | round(1) }}" y="{{ ([y - one.line, one.text] | max) | round(1) }}" font-size="{{ one.text | round(1) }}" stroke-width="{{ (one.text / 6) | round(2) }}">{{ outline.name }} {{ "%.2f" | format(outline.score) }}</text>
{% endif %}
{% endfor %}
</g>
{% endfor %}
</svg></span></button><figcaption>{{ one.photo.caption }}</figcaption></figure>
{% endfor %}
</div>
{% endfor %}
<dialog aria-label="An enlarged photo"><form method="dialog"><button>Close</button></form><div class="large"></div><p></p></dialog>
""",
    _photos,
)
