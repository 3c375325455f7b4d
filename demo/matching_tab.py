"""The tab with the matching microscope: whose query took which object, at what cost, and what the loss makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import matching_view as view
from matching import MATCHERS, Knobs, Scene, Solved, look, solve
from truth import Example
from uploads import uploaded

from detr_ft.data.images import open_image
from detr_ft.errors import UserError
from detr_ft.inference import Detector

_INTRO = (
    "DETR answers with a fixed set of boxes, its queries. Training pairs each object with exactly one of them: the **optimal bipartite "
    "matching** by a sum of costs. Click a box or a row to follow one object; the sliders solve it anew."
)
_OWN = "your own picture"
_DRAW = "Click two opposite corners of an object, in the picture below, to add it with the class chosen here."


def tab(page: gr.Blocks, detector: Detector, given: Sequence[Example]) -> None:
    """Build it, inside the page; `given` are images to begin with."""
    names = list(detector.names)
    layers = int(detector.model.config.decoder_layers)
    by_name = {f"{number}. {one.name}": one for number, one in enumerate(given, start=1)}
    scene, corner = gr.State(None, time_to_live=3600), gr.State(None, time_to_live=3600)
    gr.Markdown(_INTRO)
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            picture = gr.HTML(elem_id="scene", label="The matching")
        with gr.Column(scale=2, min_width=300):
            first = next(iter(by_name), _OWN)
            chosen = gr.Dropdown([*by_name, _OWN], value=first, label="Image", elem_id="scene-choice")
            layer = gr.Slider(
                1, max(2, layers), value=layers, step=1, visible=layers > 1, label="Decoder layer", elem_id="layer"
            )
            matcher = gr.Radio(list(MATCHERS), value=MATCHERS[0], label="Matcher", elem_id="matcher")
            with gr.Row():
                weights = [
                    gr.Slider(
                        0, most, value=start, step=0.1, label=f"Cost of {name}", min_width=120, elem_id=f"weight-{name}"
                    )
                    for name, start, most in (("class", 1, 5), ("L1", 5, 20), ("GIoU", 2, 10))
                ]
            eos = gr.Slider(0, 1, value=0.1, step=0.01, label="Weight of no-object in the loss", elem_id="eos")
            term = gr.Radio(["whole", "class", "L1", "GIoU"], value="whole", label="Cost shown", elem_id="term")
    with gr.Accordion("Your own picture", open=not by_name):
        gr.Markdown(_DRAW)
        with gr.Row():
            label = gr.Dropdown(names, value=names[0], label="Class", elem_id="own-class")
            undo = gr.Button("Take the last object away", size="sm")
        own = gr.Image(
            label="Picture",
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            height=360,
            elem_id="own",
        )
        own.preprocess = uploaded
        said = gr.Markdown(elem_id="own-said")
    parts = [gr.HTML(elem_id=f"part-{name}") for name in ("pairs", "matrix", "layers", "loss", "padding")]

    def show(
        one: Scene | None, number: int, by: str, of_class: float, l1: float, giou: float, coefficient: float, which: str
    ) -> list[Any]:
        if one is None:
            return ["<p>Choose an image, or upload one.</p>", *[""] * len(parts)]
        solved = solve(one, Knobs((of_class, l1, giou), by, coefficient))
        return drawn(solved, int(number), which, names)

    def begin(name: str) -> tuple[Scene | None, None]:
        one = by_name.get(name)
        return (
            look(detector, one.name, one.picture, one.boxes, [names.index(each) for each in one.names]) if one else None
        ), None

    def take(path: str | None) -> tuple[Any, ...]:
        if path is None:
            return None, None, "", _OWN
        try:
            return look(detector, "your picture", open_image(path), [], []), None, "", _OWN
        except UserError as error:
            return None, None, f"**This picture can't be read.** {str(error).replace(path, 'it')}", _OWN

    def click(one: Scene | None, before: list[int] | None, name: str, event: gr.SelectData) -> tuple[Any, ...]:
        at = [int(side) for side in event.index]
        if one is None or before is None:
            return one, at, f"One corner is at {at[0]}, {at[1]}: now the opposite one."
        box = [min(before[0], at[0]), min(before[1], at[1]), max(before[0], at[0]), max(before[1], at[1])]
        if box[2] - box[0] < 2 or box[3] - box[1] < 2:
            return one, None, "That is no box: the corners must lie apart."
        return with_object(one, box, names.index(name)), None, f"A {name} was added."

    knobs = [layer, matcher, *weights, eos, term]
    drawing: dict[str, Any] = {
        "fn": show,
        "inputs": [scene, *knobs],
        "outputs": [picture, *parts],
        "show_progress": "hidden",
    }
    chosen.input(begin, [chosen], [scene, corner], api_name=False).then(**drawing, api_name=False)
    own.change(take, [own], [scene, corner, said, chosen], api_name=False).then(**drawing, api_name=False)
    own.select(click, [scene, corner, label], [scene, corner, said], api_name=False).then(**drawing, api_name=False)
    undo.click(without_last, [scene], [scene], api_name=False).then(**drawing, api_name=False)
    for knob in knobs:
        knob.change(**drawing, trigger_mode="always_last", api_name=False)
    page.load(begin, [chosen], [scene, corner], api_name=False).then(**drawing, api_name=False)


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
    boxes, labels = [*scene.boxes.tolist(), list(box)], [*scene.labels.tolist(), label]
    return scene.with_truth(boxes, labels)


def without_last(scene: Scene | None) -> Scene | None:
    """The scene without the object that came last."""
    return scene and scene.with_truth(scene.boxes.tolist()[:-1], scene.labels.tolist()[:-1])
