"""The tab Matching: the query of each object, its costs, and the parts of the loss."""

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
    LIVE_EVENT,
    MAX_CACHED_IMAGES,
    MIN_EOS_COEF,
    SESSION_STATE_SECONDS,
    by_label,
    eos_slider,
    layer_slider,
    matcher_radio,
    reason_of,
    upload_path,
    weight_sliders,
)
from examples import Example
from matching import (
    AS_TRAINED,
    MATCHERS,
    MatchedScene,
    MatchSettings,
    Scene,
    cost_names,
    costs_of,
    predict_scene,
    try_match,
)
from uploads import read_upload

from detr_ft.criterion import CrossEntropyLoss, HungarianMatcher, SetCriterion
from detr_ft.errors import InputError
from detr_ft.inference import Detector

_INTRODUCTION = (
    "DETR predicts a fixed number of boxes, one for each query. Training matches each object with one query by **optimal bipartite "
    "matching**: the sum of the costs, each with a weight λ, is minimal. Click a box or a row to highlight an object. The sliders "
    "recompute the matching."
)
_OWN_IMAGE = "your own image"
_DRAWING_HELP = (
    "Draw an object with the pointer in the image above, or click two opposite corners in the image below. "
    "It gets the class selected here."
)
_MIN_SIDE_PX = 2
_PARTS = ("pairs", "matrix", "layers", "loss", "padding")


def build(page: gr.Blocks, detector: Detector, examples: Sequence[Example], criterion: SetCriterion) -> None:
    """Build the tab inside a page; `criterion` is that of the training."""
    handlers = MatchingHandlers(detector, by_label(examples), criterion)
    scene = gr.State(None, time_to_live=SESSION_STATE_SECONDS)
    corner = gr.State(None, time_to_live=SESSION_STATE_SECONDS)
    gr.Markdown(_INTRODUCTION)
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            image = gr.HTML(elem_id="scene", label="The matching")
        with gr.Column(scale=2, min_width=300):
            choices = [*handlers.by_label, _OWN_IMAGE]
            choice = gr.Dropdown(choices, value=choices[0], label="Image", elem_id="scene-choice")
            settings = _settings_column(detector, criterion)
    label, undo, own, status, drawn_box = _own_image_row(list(detector.names), opened=not examples)
    parts = [gr.HTML(elem_id=f"part-{name}") for name in _PARTS]

    show: dict[str, Any] = {
        "fn": handlers.show,
        "inputs": [scene, *settings],
        "outputs": [image, *parts],
        **LIVE_EVENT,
    }
    choice.input(handlers.open_example, [choice], [scene, corner], **LIVE_EVENT).then(**show)
    own.change(handlers.open_upload, [own], [scene, corner, status, choice], **LIVE_EVENT).then(**show)
    own.select(handlers.add_corner, [scene, corner, label], [scene, corner, status], **LIVE_EVENT).then(**show)
    undo.click(remove_last_object, [scene], [scene, status], **LIVE_EVENT).then(**show)
    drawn_box.change(handlers.add_drawn_box, [scene, drawn_box, label], [scene, status], **LIVE_EVENT).then(**show)
    for control in settings:
        control.change(**show, trigger_mode="always_last")
    page.load(handlers.open_example, [choice], [scene, corner], **LIVE_EVENT).then(**show)


@dataclass(frozen=True, eq=False)
class MatchingHandlers:
    """The event handlers of the tab."""

    detector: Detector
    by_label: Mapping[str, Example]
    criterion: SetCriterion

    def open_example(self, label: str) -> tuple[Scene | None, None]:
        """Return the scene of an example and no corner."""
        return (self._scene_of(label) if label in self.by_label else None), None

    @cached_property
    def _scene_of(self) -> Callable[[str], Scene]:
        """Predictions of the examples, cached for all sessions."""

        @lru_cache(MAX_CACHED_IMAGES)
        def scene_of(label: str) -> Scene:
            example = self.by_label[label]
            labels = example.labels(self.detector.names)
            return predict_scene(self.detector, example.image, example.boxes, labels)

        return scene_of

    def open_upload(self, path: str | None) -> tuple[Scene | None, None, str, str]:
        """Return the scene of an uploaded image without objects, or a message if it can't be read."""
        if path is None:
            return None, None, "", _OWN_IMAGE
        try:
            upload = read_upload(path)
            return predict_scene(self.detector, upload.image, [], [], upload.size), None, "", _OWN_IMAGE
        except InputError as error:
            return None, None, f"**This image can't be read.** {reason_of(error, path)}", _OWN_IMAGE

    def add_corner(
        self, scene: Scene | None, first: list[int] | None, name: str, event: gr.SelectData
    ) -> tuple[Scene | None, list[int] | None, str]:
        """Store the first corner of a box, or add an object with the second one."""
        corner = [int(side) for side in event.index]
        if scene is None or first is None:
            return scene, corner, f"First corner at {corner[0]}, {corner[1]}. Click the opposite corner."
        box = [*map(min, first, corner), *map(max, first, corner)]
        scene, message = self._add_box(scene, box, name)
        return scene, None, message

    def add_drawn_box(self, scene: Scene | None, text: str, name: str) -> tuple[Scene | None, str]:
        """Add the object that was drawn in the image, given as corners in fractions of it."""
        box = parse_corners(text)
        if scene is None or box is None:
            return scene, ""
        return self._add_box(scene, (torch.tensor(box) * scene.sides).tolist(), name)

    def _add_box(self, scene: Scene, box: Sequence[float], name: str) -> tuple[Scene, str]:
        if min(box[2] - box[0], box[3] - box[1]) < _MIN_SIDE_PX:
            return scene, f"The box is too small. Choose corners that are at least {_MIN_SIDE_PX} pixels apart."
        return add_object(scene, box, self.detector.names.index(name)), f"Added: {name}."

    def show(
        self,
        scene: Scene | None,
        layer: int | None,
        matcher: str,
        eos_coef: float | None,
        term: str,
        *weights: float | None,
    ) -> list[str]:
        """Return the image and the parts below it.

        An empty field is a weight of 0, the least weight of no-object, or layer 1.
        """
        if scene is None:
            return ["<p>Choose an image, or upload one.</p>", *[""] * len(_PARTS)]
        values = tuple(weight or 0.0 for weight in weights)
        matched = try_match(scene, MatchSettings(values, matcher, eos_coef or MIN_EOS_COEF, self.criterion))
        if isinstance(matched, str):
            return [f"<p>{escape(matched)}</p>", *[""] * len(_PARTS)]
        return render(matched, int(layer or 1), term, self.detector.names)


def _settings_column(detector: Detector, criterion: SetCriterion) -> list[Any]:
    """Make the controls in the order of the parameters of `MatchingHandlers.show`."""
    names = list(cost_names(criterion).values())
    is_default = isinstance(criterion.matcher, HungarianMatcher)
    layer = layer_slider(detector, "layer")
    matcher = matcher_radio("matcher", [*([] if is_default else [AS_TRAINED]), *MATCHERS])
    weights = weight_sliders("weight", names, [cost.weight for cost in costs_of(criterion)])
    eos_coef = next((loss.eos_coef for loss in criterion.losses if isinstance(loss, CrossEntropyLoss)), None)
    eos = eos_slider("eos", eos_coef)
    term = gr.Radio([view.TOTAL, *names], value=view.TOTAL, label="Cost shown in the matrix", elem_id="term")
    return [layer, matcher, eos, term, *weights]


def _own_image_row(names: list[str], opened: bool) -> tuple[gr.Dropdown, gr.Button, gr.Image, gr.Markdown, gr.Textbox]:
    """Make the controls for an uploaded image: class, undo, image, status, drawn box."""
    with gr.Accordion("Your own image", open=opened):
        gr.Markdown(_DRAWING_HELP)
        with gr.Row():
            label = gr.Dropdown(names, value=names[0], label="Class", elem_id="own-class")
            undo = gr.Button("Remove the last object", size="sm")
        own = gr.Image(
            label="Image", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=360, elem_id="own"
        )  # fmt: skip
        own.preprocess = upload_path
        drawn_box = gr.Textbox("", elem_id="scene-drawn", elem_classes="unseen", container=False)
        return label, undo, own, gr.Markdown(elem_id="own-status"), drawn_box


def render(matched: MatchedScene, layer: int, term: str, names: Sequence[str]) -> list[str]:
    """Return the image and the five parts below it."""
    return [
        view.image(matched, layer, names),
        view.pairs(matched, layer, names),
        view.matrix(matched, layer, term, names),
        view.layers(matched, names),
        view.loss(matched),
        view.padding(matched, layer),
    ]


def add_object(scene: Scene, box: Sequence[float], label: int) -> Scene:
    """Return the scene with another object, xyxy in pixels."""
    return scene.with_truth([*scene.boxes.tolist(), list(box)], [*scene.labels.tolist(), label])


def remove_last_object(scene: Scene | None) -> tuple[Scene | None, str]:
    """Return the scene without the last object, and an empty status."""
    return scene and scene.with_truth(scene.boxes.tolist()[:-1], scene.labels.tolist()[:-1]), ""


def parse_corners(text: str) -> list[float] | None:
    """Return left, top, right and bottom of a drawn box, in fractions; None for invalid text."""
    try:
        sides = [min(1.0, max(0.0, float(side))) for side in text.split()[:4]]
    except (ValueError, AttributeError):
        return None
    if len(sides) != 4:
        return None
    return [*map(min, sides[:2], sides[2:]), *map(max, sides[:2], sides[2:])]
