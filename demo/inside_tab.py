"""The tab that looks inside: shapes on the way through the model, and where a token or a query attends to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from html import escape
from typing import Any

import gradio as gr
import numpy as np
import torch
from controls import LIVE, REMEMBERED, layer_slider, numbered
from examples import Example
from markup import css_color, head, table
from PIL import Image
from theme import NO_SHARING
from torch import Tensor, nn

from detr_ft.boxes import cxcywh_to_xyxy
from detr_ft.data.box_frame import to_pixels
from detr_ft.inference import Detector
from detr_ft.models.attention import AttentionMaps, attention_maps
from detr_ft.structures import Predictions
from detr_ft.utils.drawing import draw

_INTRO = (
    "From pixels to boxes: the **backbone** makes a grid of features, the **encoder** lets every place of it look at every other, "
    "and each **query** of the decoder looks at the whole grid and answers with one box. Click a place or a box, or choose a query."
)
_EDGE = 640  # pixels of the longest edge of a picture
_WARM = np.array([255, 196, 0], dtype=float)
_SHOWN = 12  # queries
_CELLS = 12  # along a side of the map of what a query attends to
_SURE = 0.5  # the probability of an object, from which on a query's box is drawn
_BOX, _PLACE = "where the box’s query looks (decoder)", "where the place looks (encoder)"


def tab(page: gr.Blocks, detector: Detector, given: Sequence[Example]) -> None:
    """Build it, inside the page; `given` are the images to look at."""
    if not given:
        gr.Markdown("There are no images to look at: start the demo with `--data`.")
        return
    looker = Looker(detector, numbered(given))
    choices = list(looker.by_name)
    gr.Markdown(_INTRO)
    view = gr.State(None, time_to_live=3600)
    with gr.Row():
        with gr.Column(min_width=280):
            chosen = gr.Dropdown(choices, value=choices[0], label="Image", elem_id="inside-choice")
            picture = _shown("Click here", "inside-picture")
            clicked = gr.Radio([_BOX, _PLACE], value=_BOX, label="A click asks", elem_id="inside-clicked")
        with gr.Column(min_width=280):
            query = gr.Dropdown([], label="Query", elem_id="inside-query")
            layer = layer_slider(detector, "inside-layer")
            heat = _shown("Where it looks", "inside-heat")
    said, shapes = gr.Markdown(elem_id="inside-said"), gr.HTML(elem_id="inside-shapes")
    places = gr.HTML(elem_id="inside-places")

    turned: dict[str, Any] = {"fn": by_query, "inputs": [view, query, layer], "outputs": [heat, said], **LIVE}
    started: dict[str, Any] = {
        "fn": looker.begin,
        "inputs": [chosen],
        "outputs": [view, picture, query, shapes],
        **LIVE,
    }
    chosen.input(**started).then(**turned)
    query.input(**turned)
    layer.change(**turned, trigger_mode="always_last")
    picture.select(looker.click, [view, layer, clicked], [heat, said, query], **LIVE)
    page.load(**started).then(**turned)
    page.load(looker.specialities, None, [places], **LIVE)


@dataclass(frozen=True, eq=False)
class View:
    """An image at display size, what went on inside, and what was answered."""

    picture: Image.Image
    inside: AttentionMaps
    said: Predictions

    @property
    def sure(self) -> Tensor:
        """`[Q]`: whether a query says that there is an object."""
        return self.said.objectness[-1, 0] > _SURE


@dataclass(frozen=True, eq=False)
class Looker:
    """What the events of the tab do that ask the model."""

    detector: Detector
    by_name: Mapping[str, Example]

    def begin(self, name: str) -> tuple[View, Image.Image, Any, str]:
        """An image, its picture, its queries to choose from, and its shapes."""
        one = self._view_of(name)
        options = queries_of(one, self.detector.names)
        return (
            one,
            with_boxes(one, self.detector.names),
            gr.update(choices=options, value=options[0][1]),
            shapes_of(one),
        )

    def click(
        self, one: View | None, layer: int, clicked: str, event: gr.SelectData
    ) -> tuple[Image.Image | None, str, Any]:
        """What a click on the picture asks: where the place looks, or the query whose box lies there."""
        if one is None:
            return None, "", gr.skip()
        across, down = (float(side) / edge for side, edge in zip(event.index, one.picture.size, strict=True))
        if clicked == _PLACE:
            return *by_place(one, across, down), gr.skip()
        query = query_at(one, across, down)
        if query is None:
            return None, f"There is no box at {across:.0%} across, {down:.0%} down.", gr.skip()
        return *by_query(one, query, layer), gr.update(value=query)

    @cached_property
    def _view_of(self) -> Callable[[str], View]:
        """The model is asked once about each image, for everybody."""
        return lru_cache(REMEMBERED)(lambda name: look(self.detector, self.by_name[name].picture))

    def specialities(self) -> str:
        """What the queries have specialised in, over all images."""
        return self._specialities

    @cached_property
    def _specialities(self) -> str:
        return specialities([self._view_of(name) for name in self.by_name])


def by_query(one: View | None, number: int | None, layer: int) -> tuple[Image.Image | None, str]:
    """Where a query looks at a decoder layer."""
    if one is None or number is None:
        return None, ""
    attention = one.inside.decoder[int(layer) - 1, int(number)]
    return overlay(one, attention), f"Query {number} at decoder layer {int(layer)}: bright where it looks."


def query_at(one: View, across: float, down: float) -> int | None:
    """The query of the smallest of the boxes drawn that a place, in fractions, lies in."""
    boxes = cxcywh_to_xyxy(one.said.boxes[-1, 0])
    here = torch.tensor([across, down])
    inside = (boxes[:, :2] <= here).all(1) & (here <= boxes[:, 2:]).all(1) & one.sure
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).where(inside, torch.tensor(torch.inf))
    return int(areas.argmin()) if bool(inside.any()) else None


def with_boxes(one: View, names: Sequence[str]) -> Image.Image:
    """The picture with the boxes of the queries that are sure of an object."""
    scores, labels = (values[-1, 0] for values in one.said.best)
    boxes = to_pixels(one.said.boxes[-1, 0], one.picture.size)
    return draw(one.picture, boxes[one.sure], labels[one.sure], list(names), scores[one.sure])


def by_place(one: View, across: float, down: float) -> tuple[Image.Image, str]:
    """Where the encoder's token at a place, in fractions, looks."""
    attention = one.inside.encoder[one.inside.token_at(across, down)]
    words = f"The encoder’s token at {across:.0%} across, {down:.0%} down: bright where it looks."
    return overlay(one, attention), words


def _shown(label: str, name: str) -> gr.Image:
    return gr.Image(label=label, interactive=False, elem_id=name, height=380, **NO_SHARING)


def look(detector: Detector, picture: Image.Image) -> View:
    """Run the model and look at it on the way."""
    scale = _EDGE / max(picture.size)
    shape = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    inside = attention_maps(detector.model, detector.processor, picture)
    return View(picture.resize(shape, Image.Resampling.LANCZOS), inside, detector.predictions(picture))


def queries_of(one: View, names: Sequence[str]) -> list[tuple[str, int]]:
    """The queries, the surest first, with what they say."""
    scores, labels = (values[-1, 0] for values in one.said.best)
    order = scores.argsort(descending=True).tolist()
    return [(f"q{query}: {names[int(labels[query])]} {float(scores[query]):.2f}", query) for query in order]


def overlay(one: View, attention: Any) -> Image.Image:
    """The picture, darkened, and bright where the attention is."""
    weights = one.inside.as_map(attention).numpy()
    grey = Image.fromarray((weights * 255).astype(np.uint8)).resize(one.picture.size, Image.Resampling.BICUBIC)
    share = np.asarray(grey, dtype=float)[..., None] / 255
    pixels = np.asarray(one.picture.convert("RGB"), dtype=float)
    return Image.fromarray((pixels * (0.25 + 0.35 * share) + _WARM * 0.75 * share).clip(0, 255).astype(np.uint8))


def shapes_of(one: View) -> str:
    """The shapes on the way, in a table."""
    rows = [
        f'<tr><th scope="row">{escape(stage)}</th><td>{" × ".join(map(str, shape))}</td></tr>'
        for stage, shape in one.inside.shapes.items()
    ]
    return table("Shapes on the way, of one image", head(["stage", "shape"]), rows)


def specialities(every: Sequence[View]) -> str:
    """Where the surest queries look and where their boxes lie, over all images: what each has specialised in (Carion et al., figure 7)."""
    said = [one.said for one in every]
    scores = np.stack([one.objectness[-1, 0].numpy() for one in said])
    chosen = (-scores.sum(0)).argsort(kind="stable")[:_SHOWN]
    parts = []
    for query in chosen.tolist():
        dots = "".join(
            f'<circle cx="{100 * float(x):.1f}" cy="{100 * float(y):.1f}" r="{2 + 14 * float(w * h) ** 0.5:.1f}" '
            f'style="fill:{css_color(0 if w < 1.5 * h else 1)};fill-opacity:{0.15 + 0.6 * float(score):.2f}"/>'
            for (x, y, w, h), score in zip(
                (one.boxes[-1, 0, query].tolist() for one in said), scores[:, query], strict=True
            )
        )
        parts.append(
            f'<figure><svg viewBox="0 0 100 100" role="img" aria-label="Places of query {query}"><rect class="page" width="100" height="100"/>{_looked(every, query)}{dots}</svg><figcaption>q{query}</figcaption></figure>'
        )
    words = f"Where the {len(parts)} busiest queries look, and put their boxes, in {len(said)} images. Orange: the mean attention of the last decoder layer. Circles: larger ones are larger boxes, fuller ones surer, red ones wide."
    return f'<figure class="told"><figcaption>{words}</figcaption></figure><div class="places">{"".join(parts)}</div>'


def attended(every: Sequence[View], query: int) -> Tensor:
    """`[12, 12]`: the mean over images of what a query attends to in the last decoder layer, the largest being 1."""
    maps = []
    for one in every:
        grid = one.inside.decoder[-1, query].reshape(1, 1, *one.inside.grid)
        maps.append(nn.functional.interpolate(grid, size=(_CELLS, _CELLS), mode="area")[0, 0])
    mean = torch.stack([one / one.sum().clamp(min=1e-12) for one in maps]).mean(0)
    return mean / mean.max().clamp(min=1e-12)


def _looked(every: Sequence[View], query: int) -> str:
    side = 100 / _CELLS
    return "".join(
        f'<rect class="looked" x="{column * side:.1f}" y="{row * side:.1f}" width="{side:.1f}" height="{side:.1f}" fill-opacity="{0.75 * weight:.2f}"/>'
        for row, weights in enumerate(attended(every, query).tolist())
        for column, weight in enumerate(weights)
        if weight > 0.05
    )
