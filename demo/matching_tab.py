"""The tab with the matching microscope: whose query took which object, at what cost, and what the loss makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from html import escape
from typing import Any

import gradio as gr
import matching_view as view
import torch
from controls import (
    LEAST_EOS,
    LIVE,
    REMEMBERED,
    eos_slider,
    layer_slider,
    matcher_choice,
    numbered,
    uploaded,
    weight_sliders,
)
from examples import Example
from matching import AS_TRAINED, MATCHERS, Knobs, Scene, Solved, cost_names, costs_of, look, tried

from detr_ft.criterion import CrossEntropyLoss, HungarianMatcher, SetCriterion
from detr_ft.data.images import open_image
from detr_ft.errors import InputError
from detr_ft.inference import Detector

_INTRO = (
    "DETR answers with a fixed set of boxes, its queries. Training pairs each object with exactly one of them: the **optimal bipartite "
    "matching** by a sum of costs, each with its weight λ. Click a box or a row to follow one object; the sliders solve it anew."
)
_OWN = "your own picture"
_DRAW = "Draw an object with the pointer in the picture above, or click two opposite corners of it in the one below: it gets the class chosen here."
_PARTS = ("pairs", "matrix", "layers", "loss", "padding")


def tab(page: gr.Blocks, detector: Detector, given: Sequence[Example], criterion: SetCriterion) -> None:
    """Build it, inside the page; `given` are images to begin with, `criterion` is what the model was trained by."""
    microscope = Microscope(detector, numbered(given), criterion)
    scene, corner = gr.State(None, time_to_live=3600), gr.State(None, time_to_live=3600)
    gr.Markdown(_INTRO)
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            picture = gr.HTML(elem_id="scene", label="The matching")
        with gr.Column(scale=2, min_width=300):
            choices = [*microscope.by_name, _OWN]
            chosen = gr.Dropdown(choices, value=choices[0], label="Image", elem_id="scene-choice")
            knobs = _knobs(detector, criterion)
    label, undo, own, said, drawn_box = _own_picture(list(detector.names), opened=not given)
    parts = [gr.HTML(elem_id=f"part-{name}") for name in _PARTS]

    drawing: dict[str, Any] = {"fn": microscope.show, "inputs": [scene, *knobs], "outputs": [picture, *parts], **LIVE}
    chosen.input(microscope.begin, [chosen], [scene, corner], **LIVE).then(**drawing)
    own.change(microscope.take, [own], [scene, corner, said, chosen], **LIVE).then(**drawing)
    own.select(microscope.click, [scene, corner, label], [scene, corner, said], **LIVE).then(**drawing)
    undo.click(without_last, [scene], [scene, said], **LIVE).then(**drawing)
    drawn_box.change(microscope.add, [scene, drawn_box, label], [scene, said], **LIVE).then(**drawing)
    for knob in knobs:
        knob.change(**drawing, trigger_mode="always_last")
    page.load(microscope.begin, [chosen], [scene, corner], **LIVE).then(**drawing)


@dataclass(frozen=True, eq=False)
class Microscope:
    """What the events of the tab do."""

    detector: Detector
    by_name: Mapping[str, Example]
    criterion: SetCriterion

    def begin(self, name: str) -> tuple[Scene | None, None]:
        """The scene of a chosen image, and no corner."""
        return (self._scene_of(name) if name in self.by_name else None), None

    @cached_property
    def _scene_of(self) -> Callable[[str], Scene]:
        """The model is asked once about each image, for everybody."""

        @lru_cache(REMEMBERED)
        def scene_of(name: str) -> Scene:
            one = self.by_name[name]
            return look(self.detector, one.name, one.picture, one.boxes, one.labels(self.detector.names))

        return scene_of

    def take(self, path: str | None) -> tuple[Scene | None, None, str, str]:
        """The scene of an uploaded picture, without objects as yet, or why it can't be read."""
        if path is None:
            return None, None, "", _OWN
        try:
            return look(self.detector, "your picture", open_image(path), [], []), None, "", _OWN
        except InputError as error:
            return None, None, f"**This picture can't be read.** {str(error).replace(path, 'it')}", _OWN

    def click(
        self, scene: Scene | None, before: list[int] | None, name: str, event: gr.SelectData
    ) -> tuple[Scene | None, list[int] | None, str]:
        """A corner of an object, or with the one before, the object."""
        at = [int(side) for side in event.index]
        if scene is None or before is None:
            return scene, at, f"One corner is at {at[0]}, {at[1]}: now the opposite one."
        box = [min(before[0], at[0]), min(before[1], at[1]), max(before[0], at[0]), max(before[1], at[1])]
        if box[2] - box[0] < 2 or box[3] - box[1] < 2:
            return scene, None, "That is no box: the corners must lie apart."
        return with_object(scene, box, self.detector.names.index(name)), None, f"A {name} was added."

    def add(self, scene: Scene | None, told: str, name: str) -> tuple[Scene | None, str]:
        """An object that was drawn in the picture: the corners, in fractions of it, as the page tells them."""
        box = corners_of(told)
        if scene is None or box is None:
            return scene, ""
        x0, y0, x1, y1 = (float(side) for side in torch.tensor(box) * scene.sides)
        if x1 - x0 < 2 or y1 - y0 < 2:
            return scene, "That is no box: the corners must lie apart."
        return with_object(scene, [x0, y0, x1, y1], self.detector.names.index(name)), f"A {name} was added."

    def show(
        self,
        scene: Scene | None,
        layer: int,
        matcher: str,
        eos: float,
        term: str,
        *weights: float,
    ) -> list[str]:
        """The picture and the parts below it."""
        if scene is None:
            return ["<p>Choose an image, or upload one.</p>", *[""] * len(_PARTS)]
        # A field that was emptied tells nothing.
        told = tuple(weight or 0.0 for weight in weights)
        solved = tried(scene, Knobs(told, matcher, eos or LEAST_EOS, self.criterion))
        if isinstance(solved, str):
            return [f"<p>{escape(solved)}</p>", *[""] * len(_PARTS)]
        return drawn(solved, int(layer or 1), term, self.detector.names)


def _knobs(detector: Detector, criterion: SetCriterion) -> list[Any]:
    """What can be turned, in the order in which `Microscope.show` takes it."""
    names = list(cost_names(criterion).values())
    plain = isinstance(criterion.matcher, HungarianMatcher)
    layer = layer_slider(detector, "layer")
    matcher = matcher_choice("Matcher", "matcher", [*([] if plain else [AS_TRAINED]), *MATCHERS])
    weights = weight_sliders("weight", names, [cost.weight for cost in costs_of(criterion)])
    told = next((loss.eos_coef for loss in criterion.losses if isinstance(loss, CrossEntropyLoss)), None)
    eos = eos_slider("eos", told)
    term = gr.Radio(["whole", *names], value="whole", label="Cost shown", elem_id="term")
    return [layer, matcher, eos, term, *weights]


def _own_picture(names: list[str], opened: bool) -> tuple[gr.Dropdown, gr.Button, gr.Image, gr.Markdown, gr.Textbox]:
    """Where a picture of one's own goes, and its objects: class, undo, picture, what is said of it, and what was drawn."""
    with gr.Accordion("Your own picture", open=opened):
        gr.Markdown(_DRAW)
        with gr.Row():
            label = gr.Dropdown(names, value=names[0], label="Class", elem_id="own-class")
            undo = gr.Button("Take the last object away", size="sm")
        own = gr.Image(
            label="Picture", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=360, elem_id="own"
        )  # fmt: skip
        own.preprocess = uploaded
        drawn_box = gr.Textbox("", elem_id="scene-drawn", elem_classes="unseen", container=False)
        return label, undo, own, gr.Markdown(elem_id="own-said"), drawn_box


def drawn(solved: Solved, layer: int, term: str, names: Sequence[str]) -> list[str]:
    """The picture and the five parts below it."""
    return [
        view.picture(solved, layer, names),
        view.pairs(solved, layer, names),
        view.matrix(solved, layer, term, names),
        view.layers(solved, names),
        view.loss(solved),
        view.padding(solved, layer),
    ]


def with_object(scene: Scene, box: Sequence[float], label: int) -> Scene:
    """The scene with one object more; the model is not asked again."""
    return scene.with_truth([*scene.boxes.tolist(), list(box)], [*scene.labels.tolist(), label])


def without_last(scene: Scene | None) -> tuple[Scene | None, str]:
    """The scene without the object that came last."""
    return scene and scene.with_truth(scene.boxes.tolist()[:-1], scene.labels.tolist()[:-1]), ""


def corners_of(told: str) -> list[float] | None:
    """Left, top, right and bottom of what was drawn, in fractions of the picture; None of what is not that."""
    try:
        sides = [min(1.0, max(0.0, float(side))) for side in told.split()[:4]]
    except (ValueError, AttributeError):
        return None
    return (
        [
            *(min(sides[axis], sides[axis + 2]) for axis in (0, 1)),
            *(max(sides[axis], sides[axis + 2]) for axis in (0, 1)),
        ]
        if len(sides) == 4
        else None
    )
