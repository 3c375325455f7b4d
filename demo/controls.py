"""Controls, event settings and uploads that several tabs share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from examples import Example
from gradio.utils import get_upload_folder
from matching import TERM_NAMES, MatchSettings

from detr_ft.errors import InputError
from detr_ft.inference import Detector

# Events that update the page while a control moves: no progress overlay, and no API endpoint.
LIVE_EVENT: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
MAX_CACHED_IMAGES = 24  # examples whose predictions are cached, for all sessions
MIN_EOS_COEF = 0.01
SESSION_STATE_SECONDS = 3600
_MAX_WEIGHTS = {"class": 5.0, "L1": 20.0}
_MAX_OTHER_WEIGHT = 10.0


def by_label(examples: Sequence[Example]) -> dict[str, Example]:
    """Return the examples by a numbered label, because two of them may have the same name."""
    return {f"{number}. {example.name}": example for number, example in enumerate(examples, start=1)}


def weight_sliders(
    prefix: str, names: Sequence[str] = tuple(TERM_NAMES.values()), start: Sequence[float] = MatchSettings().weights
) -> list[gr.Slider]:
    """Make sliders for the weights of the costs, side by side, with ids `PREFIX-class` and so on."""
    with gr.Row():
        return [
            gr.Slider(
                0,
                max(_MAX_WEIGHTS.get(name, _MAX_OTHER_WEIGHT), 2 * value),
                value=value,
                step=0.1,
                label=f"λ {name}",
                min_width=100,
                elem_id=f"{prefix}-{name.replace(' ', '-')}",
                elem_classes="weight",
            )
            for name, value in zip(names, start, strict=True)
        ]


def layer_slider(detector: Detector, elem_id: str) -> gr.Slider:
    """Make a slider over the decoder layers that starts at the last one; hidden if there is only one."""
    layers = int(detector.config.decoder_layers)
    return gr.Slider(
        1, max(2, layers), value=layers, step=1, visible=layers > 1, label="Decoder layer", elem_id=elem_id
    )


def eos_slider(elem_id: str, start: float | None = MatchSettings().eos_coef) -> gr.Slider:
    """Make a slider for the weight of no-object in the loss; hidden if the loss has none."""
    return gr.Slider(
        MIN_EOS_COEF,
        1,
        value=MatchSettings().eos_coef if start is None else start,
        step=0.01,
        label="Weight of no-object in the loss",
        visible=start is not None,
        elem_id=elem_id,
    )


def matcher_radio(elem_id: str, choices: Sequence[str]) -> gr.Radio:
    """Make a choice of matchers that starts with the first."""
    return gr.Radio(list(choices), value=choices[0], label="Matcher", elem_id=elem_id)


def page_error(message: str) -> gr.Error:
    """Return an error to raise for invalid input: the page shows it, and the server's log does not."""
    return gr.Error(message, print_exception=False)


def upload_path(payload: Any) -> str | None:
    """Return the path of an uploaded file; raise an error for a path outside the folder of uploads.

    Replaces `gr.Image.preprocess`, which opens the file itself and reports errors in terms of its own code.
    """
    if payload is None or payload.path is None:
        return None
    if not Path(payload.path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise page_error("The image must be an uploaded file. Upload it first.")
    return str(payload.path)


def reason_of(error: InputError, path: str = "") -> str:
    """Return the message of an error about an uploaded image, without the path on the server."""
    return str(error).removeprefix(f"{path}: ").removeprefix("image 0: ")
