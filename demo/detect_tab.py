"""The tab that shows what a detector finds: the model runs once a picture; threshold and classes are applied to what it found."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import gradio as gr
from detect import Found, Problem, analyse, coco, drawn, known, listed, rows, select, sentence
from look import NO_SHARING
from PIL import Image
from uploads import uploaded

from detr_ft.inference import Detector

COLUMNS = ["class", "score", "x", "y", "width", "height"]
WELCOME = "Drop, choose or paste a picture to begin."


def tab(detector: Detector, examples: Sequence[str]) -> None:
    """Build it, inside a page; `examples` are paths of pictures to offer."""
    names = list(detector.names)
    gr.Markdown(f"Give it a picture: it marks what it finds among {listed(names)}.")
    image, result = _pictures()
    status = gr.Markdown(WELCOME, elem_id="status")
    threshold, classes = _controls(names, fmean(detector.thresholds.values()))
    if examples:
        gr.Examples([[example] for example in examples], inputs=[image], label="Examples", cache_examples=False)
    table = gr.Dataframe(
        headers=COLUMNS,
        datatype=["str", *["number"] * 5],
        interactive=False,
        label="Boxes, in pixels",
        max_height=320,
        elem_id="table",
    )
    download = gr.DownloadButton("Download as COCO JSON", interactive=False, size="sm", elem_id="download")

    found = gr.State(None, time_to_live=3600)
    shown = {"inputs": [found, threshold, classes], "outputs": [result, table, status, download]}

    def render(state: Found | Problem | None, least: float, chosen: list[str]) -> tuple[Any, ...]:
        return show(names, state, least, chosen)

    image.change(partial(analyse, detector), [image], [found], api_name="analyse").then(render, **shown)
    for control in (threshold, classes):
        control.change(render, **shown, show_progress="hidden", trigger_mode="always_last")


def show(
    names: Sequence[str], found: Found | Problem | None, threshold: float, classes: Sequence[str]
) -> tuple[Image.Image | None, list[list[Any]], str, Any]:
    """What the page shows of a state: picture, table, sentence and download."""
    if not isinstance(found, Found):
        words = WELCOME if found is None else f"**This picture can't be read.** {found.message}"
        return None, [], words, gr.update(value=None, interactive=False)
    shown = select(found, names, threshold, classes)
    file = Path(tempfile.mkdtemp(prefix="detr-ft-")) / f"{Path(found.name).stem}.coco.json"
    file.write_text(json.dumps(coco(found, names, shown), indent=1), encoding="utf-8")
    download = gr.update(value=str(file), interactive=True)
    return drawn(found, names, shown), rows(names, shown), sentence(found, names, shown), download


def _pictures() -> tuple[gr.Image, gr.Image]:
    """The picture that comes in and the one with boxes, side by side where there is room."""
    size: dict[str, Any] = {"height": 420, "min_width": 300}
    with gr.Row():
        image = gr.Image(
            label="Picture",
            type="filepath",
            image_mode=None,
            sources=["upload", "webcam", "clipboard"],
            scale=2,
            elem_id="image",
            **size,
        )
        image.preprocess = uploaded
        result = gr.Image(
            label="Detections", format="png", interactive=False, scale=3, elem_id="result", **size, **NO_SHARING
        )
    return image, result


def _controls(names: Sequence[str], start: float) -> tuple[gr.Slider, gr.Dropdown]:
    """Threshold, from which value on, and classes."""
    with gr.Row():
        threshold = gr.Slider(
            0, 1, value=round(start, 2), step=0.01, label="Threshold", min_width=300, elem_id="threshold"
        )
        classes = gr.Dropdown(
            known(names),
            value=[],
            multiselect=True,
            label="Classes (all if none is chosen)",
            min_width=300,
            elem_id="classes",
        )
    return threshold, classes
