"""The tab Inside: tensor shapes, and the attention of encoder tokens and decoder queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from html import escape
from typing import Any

import gradio as gr
import numpy as np
import torch
from controls import LIVE_EVENT, MAX_CACHED_IMAGES, SESSION_STATE_SECONDS, by_label, layer_slider
from examples import Example
from markup import css_color, fit, header_row, table
from PIL import Image
from theme import NO_SHARE_BUTTON
from torch import Tensor, nn

from detr_ft.boxes import cxcywh_to_xyxy
from detr_ft.data.box_frame import to_pixels
from detr_ft.inference import Detector
from detr_ft.models.attention import AttentionMaps, attention_maps
from detr_ft.structures import Predictions
from detr_ft.utils.drawing import draw
from detr_ft.utils.formatting import percent

_INTRODUCTION = (
    "The **backbone** turns the image into a grid of features. In the **encoder** every position of the grid attends to all others. "
    "In the **decoder** each **query** attends to the whole grid and predicts one box. Click the image, or choose a query."
)
_QUERY_CLICK, _POSITION_CLICK = "the query of the box (decoder)", "the image position (encoder)"
_DISPLAY_EDGE_PX = 440  # about that of the page, so that the names of boxes are readable
_HEAT_RGB = np.array([255, 196, 0], dtype=float)
_MIN_OBJECTNESS = 0.5  # of a query whose box is drawn
_MAX_SPECIALIZED_QUERIES = 12
_MAP_CELLS_PER_SIDE = 12
_MIN_CELL_WEIGHT = 0.05  # weaker cells of the map are not drawn
_WIDE_ASPECT_RATIO = 1.5


def build(page: gr.Blocks, detector: Detector, examples: Sequence[Example]) -> None:
    """Build the tab inside a page."""
    if not examples:
        gr.Markdown("There are no images. Start the demo with `--data`.")
        return
    handlers = InsideHandlers(detector, by_label(examples))
    choices = list(handlers.by_label)
    gr.Markdown(_INTRODUCTION)
    view = gr.State(None, time_to_live=SESSION_STATE_SECONDS)
    with gr.Row():
        with gr.Column(min_width=280):
            choice = gr.Dropdown(choices, value=choices[0], label="Image", elem_id="inside-choice")
            image = _output_image("Click a box or a position", "inside-image")
            click_target = gr.Radio(
                [_QUERY_CLICK, _POSITION_CLICK],
                value=_QUERY_CLICK,
                label="A click shows the attention of",
                elem_id="inside-click-target",
            )
        with gr.Column(min_width=280):
            query = gr.Dropdown([], label="Query", elem_id="inside-query")
            layer = layer_slider(detector, "inside-layer")
            heat = _output_image("Attention", "inside-heat")
    status, shapes = gr.Markdown(elem_id="inside-status"), gr.HTML(elem_id="inside-shapes")
    specialization = gr.HTML(elem_id="inside-queries")

    show_query: dict[str, Any] = {
        "fn": query_attention,
        "inputs": [view, query, layer],
        "outputs": [heat, status],
        **LIVE_EVENT,
    }
    open_example: dict[str, Any] = {
        "fn": handlers.open_example,
        "inputs": [choice],
        "outputs": [view, image, query, shapes],
        **LIVE_EVENT,
    }
    choice.input(**open_example).then(**show_query)
    query.input(**show_query)
    layer.change(**show_query, trigger_mode="always_last")
    image.select(handlers.click, [view, layer, click_target], [heat, status, query], **LIVE_EVENT)
    page.load(**open_example).then(**show_query)
    page.load(handlers.specialization, None, [specialization], **LIVE_EVENT)


@dataclass(frozen=True, eq=False)
class View:
    """An image at display size with the model's attention and predictions."""

    image: Image.Image
    attention: AttentionMaps
    predictions: Predictions

    @property
    def is_object(self) -> Tensor:
        """A mask of the queries that predict an object, `[Q]`."""
        return self.predictions.objectness[-1, 0] > _MIN_OBJECTNESS


@dataclass(frozen=True, eq=False)
class InsideHandlers:
    """The event handlers of the tab that need the model."""

    detector: Detector
    by_label: Mapping[str, Example]

    def open_example(self, label: str) -> tuple[View, Image.Image, Any, str]:
        """Return an example's view, its image with boxes, the choice of queries, and the table of shapes."""
        view = self._view_of(label)
        choices = query_choices(view, self.detector.names)
        update = gr.update(choices=choices, value=choices[0][1])
        return view, draw_predictions(view, self.detector.names), update, shapes_table(view)

    def click(
        self, view: View | None, layer: int, click_target: str, event: gr.SelectData
    ) -> tuple[Image.Image | None, str, Any]:
        """Show the attention of the clicked position, or of the query whose box was clicked."""
        if view is None:
            return None, "", gr.skip()
        x, y = (float(side) / edge for side, edge in zip(event.index, view.image.size, strict=True))
        if click_target == _POSITION_CLICK:
            return *position_attention(view, x, y), gr.skip()
        query = query_at(view, x, y)
        if query is None:
            return None, f"No box at {percent(x)} across, {percent(y)} down.", gr.skip()
        return *query_attention(view, query, layer), gr.update(value=query)

    @cached_property
    def _view_of(self) -> Callable[[str], View]:
        """Attention and predictions of the examples, cached for all sessions."""
        return lru_cache(MAX_CACHED_IMAGES)(lambda label: compute_view(self.detector, self.by_label[label].image))

    def specialization(self) -> str:
        """Return the specialization of the queries over all examples."""
        return self._specialization

    @cached_property
    def _specialization(self) -> str:
        return specialization_grid([self._view_of(label) for label in self.by_label])


def compute_view(detector: Detector, image: Image.Image) -> View:
    """Run the model on an image for its attention and its predictions."""
    attention = attention_maps(detector.model, detector.processor, image)
    small = image.resize(fit(image.size, _DISPLAY_EDGE_PX), Image.Resampling.LANCZOS)
    return View(small, attention, detector.predictions(image))


def query_attention(view: View | None, query: int | None, layer: int) -> tuple[Image.Image | None, str]:
    """Return the attention of a query at a decoder layer, counted from 1, as an image and a status."""
    if view is None or query is None:
        return None, ""
    attention = view.attention.decoder[int(layer) - 1, int(query)]
    return overlay(view, attention), f"Query {query} at decoder layer {int(layer)}. Bright: high attention."


def position_attention(view: View, x: float, y: float) -> tuple[Image.Image, str]:
    """Return the attention of the encoder token at a position, in fractions, as an image and a status."""
    attention = view.attention.encoder[view.attention.token_at(x, y)]
    return overlay(view, attention), f"Encoder token at {percent(x)} across, {percent(y)} down. Bright: high attention."


def query_at(view: View, x: float, y: float) -> int | None:
    """Return the query of the smallest drawn box around a position, in fractions, or None."""
    boxes = cxcywh_to_xyxy(view.predictions.boxes[-1, 0])
    position = torch.tensor([x, y])
    inside = (boxes[:, :2] <= position).all(1) & (position <= boxes[:, 2:]).all(1) & view.is_object
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).where(inside, torch.tensor(torch.inf))
    return int(areas.argmin()) if bool(inside.any()) else None


def draw_predictions(view: View, names: Sequence[str]) -> Image.Image:
    """Draw the boxes of the queries that predict an object."""
    scores, labels = (values[-1, 0] for values in view.predictions.best)
    boxes, shown = to_pixels(view.predictions.boxes[-1, 0], view.image.size), view.is_object
    return draw(view.image, boxes[shown], labels[shown], list(names), scores[shown])


def query_choices(view: View, names: Sequence[str]) -> list[tuple[str, int]]:
    """Return the queries with their class and score, best first."""
    scores, labels = (values[-1, 0] for values in view.predictions.best)
    order = scores.argsort(descending=True).tolist()
    return [(f"q{query}: {names[int(labels[query])]} {float(scores[query]):.2f}", query) for query in order]


def overlay(view: View, attention: Tensor) -> Image.Image:
    """Darken the image and brighten it where the attention `[N]` is high."""
    weights = view.attention.as_map(attention).numpy()
    gray = Image.fromarray((weights * 255).astype(np.uint8)).resize(view.image.size, Image.Resampling.BICUBIC)
    weight = np.asarray(gray, dtype=float)[..., None] / 255
    pixels = np.asarray(view.image.convert("RGB"), dtype=float) * (0.25 + 0.35 * weight) + _HEAT_RGB * 0.75 * weight
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def shapes_table(view: View) -> str:
    """Return a table of the tensor shapes at each stage."""
    rows = [
        f'<tr><th scope="row">{escape(stage)}</th><td>{" × ".join(map(str, shape))}</td></tr>'
        for stage, shape in view.attention.shapes.items()
    ]
    return table("Tensor shapes for one image", header_row(["stage", "shape"]), rows)


def specialization_grid(views: Sequence[View]) -> str:
    """Draw attention and boxes of the best queries over images (Carion et al., ECCV 2020, figure 7)."""
    scores = np.stack([view.predictions.objectness[-1, 0].numpy() for view in views])
    queries = (-scores.sum(0)).argsort(kind="stable")[:_MAX_SPECIALIZED_QUERIES].tolist()
    maps = "".join(
        f'<figure><svg viewBox="0 0 100 100" role="img" aria-label="Attention and boxes of query {query}">'
        f'<rect class="page" width="100" height="100"/>{_attention_cells(views, query)}{_box_circles(views, query)}</svg>'
        f"<figcaption>q{query}</figcaption></figure>"
        for query in queries
    )
    caption = (
        f"Attention and boxes of the {len(queries)} queries with the highest scores, over {len(views)} images. Orange: mean attention "
        "of the last decoder layer. Circles: boxes at their centers, larger for larger boxes, more opaque for higher scores, red for wide ones."
    )
    return f'<figure class="captioned"><figcaption>{caption}</figcaption></figure><div class="queries">{maps}</div>'


def mean_attention(views: Sequence[View], query: int) -> Tensor:
    """Return the attention of a query in the last layer, averaged over images: `[12, 12]`, at most 1."""
    maps = []
    for view in views:
        grid = view.attention.decoder[-1, query].reshape(1, 1, *view.attention.grid)
        cells = nn.functional.interpolate(grid, size=(_MAP_CELLS_PER_SIDE, _MAP_CELLS_PER_SIDE), mode="area")[0, 0]
        maps.append(cells / cells.sum().clamp(min=1e-12))
    mean = torch.stack(maps).mean(0)
    return mean / mean.max().clamp(min=1e-12)


def _attention_cells(views: Sequence[View], query: int) -> str:
    side = 100 / _MAP_CELLS_PER_SIDE
    return "".join(
        f'<rect class="attention" x="{column * side:.1f}" y="{row * side:.1f}" width="{side:.1f}" height="{side:.1f}" fill-opacity="{0.75 * weight:.2f}"/>'
        for row, weights in enumerate(mean_attention(views, query).tolist())
        for column, weight in enumerate(weights)
        if weight > _MIN_CELL_WEIGHT
    )


def _box_circles(views: Sequence[View], query: int) -> str:
    circles = []
    for view in views:
        x, y, width, height = view.predictions.boxes[-1, 0, query].tolist()
        score = float(view.predictions.objectness[-1, 0, query])
        color = css_color(0 if width < _WIDE_ASPECT_RATIO * height else 1)
        circles.append(
            f'<circle cx="{100 * x:.1f}" cy="{100 * y:.1f}" r="{2 + 14 * (width * height) ** 0.5:.1f}" '
            f'style="fill:{color};fill-opacity:{0.15 + 0.6 * score:.2f}"/>'
        )
    return "".join(circles)


def _output_image(label: str, elem_id: str) -> gr.Image:
    return gr.Image(label=label, interactive=False, elem_id=elem_id, height=380, **NO_SHARE_BUTTON)
