"""Controls that several tabs have, and how their events behave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from examples import Example
from gradio.utils import get_upload_folder
from matching import TERMS, Knobs

from detr_ft.inference import Detector

# Events that answer as a control is moved: without a curtain over what is shown, and no endpoint for programs.
LIVE: dict[str, Any] = {"show_progress": "hidden", "api_name": False}


# Images that all who see the page share, and what the model says of them is remembered.
REMEMBERED = 24
LEAST_EOS = 0.01  # the least weight of no-object


def numbered(given: Sequence[Example]) -> dict[str, Example]:
    """The images by what a list to choose from calls them: two may have one name."""
    return {f"{number}. {one.name}": one for number, one in enumerate(given, start=1)}


def weight_sliders(
    owner: str, names: Sequence[str] = tuple(TERMS.values()), start: Sequence[float] = Knobs().weights
) -> list[gr.Slider]:
    """A slider for the weight of each cost, side by side; `OWNER-class`, `OWNER-L1` and so on on the page."""
    most = {"class": 5, "L1": 20}
    with gr.Row():
        return [
            gr.Slider(
                0,
                max(most.get(name, 10), 2 * value),
                value=value,
                step=0.1,
                label=f"λ {name}",
                min_width=100,
                elem_id=f"{owner}-{name.replace(' ', '-')}",
            )
            for name, value in zip(names, start, strict=True)
        ]


def layer_slider(detector: Detector, name: str) -> gr.Slider:
    """A slider through the decoder layers of a model, the last to begin with; not to be seen where there is one."""
    layers = int(detector.config.decoder_layers)
    return gr.Slider(
        1, max(2, layers), value=layers, step=1, visible=layers > 1, label="Decoder layer", elem_id=name
    )  # fmt: skip


def eos_slider(name: str, start: float | None = Knobs().eos_coef) -> gr.Slider:
    """A slider for the weight of no-object in the loss; not to be seen where the loss has none."""
    return gr.Slider(
        LEAST_EOS,
        1,
        value=Knobs().eos_coef if start is None else start,
        step=0.01,
        label="Weight of no-object in the loss",
        visible=start is not None,
        elem_id=name,
    )


def matcher_choice(label: str, name: str, choices: Sequence[str]) -> gr.Radio:
    """One of some matchers, the first to begin with."""
    return gr.Radio(list(choices), value=choices[0], label=label, elem_id=name)


def refused(words: str) -> gr.Error:
    """What is told of a mistake on the other side of the page; nothing of it is for the server's log."""
    return gr.Error(words, print_exception=False)


def uploaded(payload: Any) -> str | None:
    """The path of an uploaded file; a path that a request made up, outside the folder of uploads, is refused.

    In the place of what Gradio does with a picture: it would open the file itself, with a message for programmers.
    """
    if payload is None or payload.path is None:
        return None
    if not Path(payload.path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise refused("Only a picture that was uploaded here is read.")
    return str(payload.path)
