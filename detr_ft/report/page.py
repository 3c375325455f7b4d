"""The page of a run: one self-contained HTML file that says what happened, in words, figures and pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from detr_ft.report.charts import curves, line_chart

MAX_PICTURES = 12
_PICTURE_BYTES = 4_000_000
# Longest side and JPEG quality, tried in turn until all pictures together are small enough.
_PICTURE_SIZES = ((720, 85), (560, 80), (420, 75), (320, 65), (240, 50))

_FIGURES = {
    "map": ("mAP", "average precision over IoU .50 to .95"),
    "map_50": ("mAP50", "at IoU .50"),
    "map_75": ("mAP75", "at IoU .75"),
    "mar_100": ("mAR100", "average recall, 100 detections an image"),
    "map_small": ("mAP small", "objects under 32² px"),
    "map_medium": ("mAP medium", "32² to 96² px"),
    "map_large": ("mAP large", "over 96² px"),
}


@dataclass(frozen=True)
class RunSummary:
    """What the page tells of a run.

    `before` and `after` are what `coco_metrics` gives (`after` is empty where nothing was measured). `log` holds the
    rows of `log.jsonl`: losses and learning rate of steps, `map` of evaluations. `gallery` holds, for each image, a
    caption and the picture with the truth and with the predictions drawn. `environment` names versions and hardware.
    """

    title: str
    verdict: str
    after: Mapping[str, Any]
    before: Mapping[str, Any] | None = None
    log: Sequence[Mapping[str, Any]] = ()
    gallery: Sequence[tuple[str, Image.Image, Image.Image]] = ()
    criterion: str = ""
    recipe: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def render_page(summary: RunSummary) -> str:
    """The page as HTML: nothing is fetched, under 5 MB, light and dark, from 390 px on."""
    template = Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(figure=_figure, change=_change)
    return environment.from_string(template).render(
        summary=summary,
        figures=[(key, *words) for key, words in _FIGURES.items() if key in summary.after],
        charts=[
            (name, first, last, Markup(line_chart(name, xs, ys))) for name, xs, ys, first, last in curves(summary.log)
        ],
        gallery=_gallery(summary.gallery[:MAX_PICTURES]),
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _change(before: float | None, after: float | None) -> str:
    return "–" if before is None or after is None else f"{after - before:+.3f}".replace("-", "−")


def _gallery(pictures: Sequence[tuple[str, Image.Image, Image.Image]]) -> list[tuple[str, str, str]]:
    """Captions and pictures as data URIs, as large as the room for all of them allows."""
    shown: list[tuple[str, str, str]] = []
    for side, quality in _PICTURE_SIZES:
        shown = [(text, _uri(truth, side, quality), _uri(found, side, quality)) for text, truth, found in pictures]
        if sum(len(truth) + len(found) for _, truth, found in shown) <= _PICTURE_BYTES:
            break
    return shown


def _uri(image: Image.Image, side: int, quality: int) -> str:
    picture = image.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = BytesIO()
    # Full colour resolution: thin coloured lines blur without it.
    picture.save(stream, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
