"""Controls that several tabs have, and how their events behave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from matching import MATCHERS, Knobs
from truth import Example

from detr_ft.inference import Detector

# Events that answer as a control is moved: without a curtain over what is shown, and no endpoint for programs.
LIVE: dict[str, Any] = {"show_progress": "hidden", "api_name": False}


def numbered(given: Sequence[Example]) -> dict[str, Example]:
    """The images by what a list to choose from calls them: two may have one name."""
    return {f"{number}. {one.name}": one for number, one in enumerate(given, start=1)}


def weight_sliders(owner: str, start: Sequence[float] = Knobs().weights) -> list[gr.Slider]:
    """A slider for the weight of each cost, side by side; `OWNER-class`, `OWNER-L1` and `OWNER-GIoU` on the page."""
    with gr.Row():
        return [
            gr.Slider(0, most, value=value, step=0.1, label=f"λ of {name}", min_width=100, elem_id=f"{owner}-{name}")
            for name, value, most in zip(("class", "L1", "GIoU"), start, (5, 20, 10), strict=True)
        ]


def layer_slider(detector: Detector, name: str) -> gr.Slider:
    """A slider through the decoder layers of a model, the last to begin with; not to be seen where there is one."""
    layers = int(detector.model.config.decoder_layers)
    return gr.Slider(
        1, max(2, layers), value=layers, step=1, visible=layers > 1, label="Decoder layer", elem_id=name
    )  # fmt: skip


def matcher_choice(label: str, name: str) -> gr.Radio:
    """One of the matchers."""
    return gr.Radio(list(MATCHERS), value=MATCHERS[0], label=label, elem_id=name)
