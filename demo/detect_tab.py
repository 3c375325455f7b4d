"""The tab that shows what a detector finds: the model runs once a picture; threshold and classes are applied to what it found."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import gradio as gr
from controls import LIVE, refused, uploaded
from detect import Found, Problem, analyse, coco, drawn, known, listed, painted, rows, select, sentence
from markup import opened
from PIL import Image

from detr_ft.inference import Detector

WELCOME = "Drop, choose or paste a picture to begin."
MOST = 24  # pictures at once
# The file is made once it is asked for, into a button of its own that nobody sees, and that is pressed then.
_FETCH = "() => setTimeout(() => document.querySelector('#file').click(), 300)"
Seen = list[Found | Problem]


def tab(detector: Detector, examples: Sequence[str]) -> None:
    """Build it, inside a page; `examples` are paths of pictures to offer."""
    looking = Looking(detector)
    gr.Markdown(f"Give it a picture: it marks what it finds among {listed(looking.names)}.")
    image, several, result = _pictures()
    status = gr.Markdown(WELCOME, elem_id="status")
    strip = gr.Gallery(
        visible=False,
        columns=8,
        height=150,
        object_fit="contain",
        allow_preview=False,
        label="Pictures",
        elem_id="strip",
    )
    own, threshold, classes = _controls(looking)
    if examples:
        gr.Examples([[example] for example in examples], inputs=[image], label="Examples", cache_examples=False)
    table = gr.HTML(elem_id="table")
    with gr.Row():
        as_coco = gr.Button("Download as COCO JSON", interactive=False, size="sm", elem_id="download")
        as_picture = gr.Button("Download the picture", interactive=False, size="sm", elem_id="download-picture")
        file = gr.DownloadButton("file", elem_id="file")

    seen, place = gr.State([], time_to_live=3600), gr.State(0, time_to_live=3600)
    chosen = [seen, place, own, threshold, classes]
    shown = [result, table, status, as_coco, as_picture]
    drawing: dict[str, Any] = {"fn": looking.show, "inputs": chosen, "outputs": shown, **LIVE}
    image.change(looking.one, [image], [seen, place, strip], api_name=False).then(**drawing)
    several.upload(looking.many, [several], [seen, place, strip], api_name=False).then(**drawing)
    strip.select(picked, outputs=[place], **LIVE).then(**drawing)
    threshold.input(lambda: False, outputs=[own], **LIVE)
    for control in (own, threshold, classes):
        control.change(**drawing, trigger_mode="always_last")
    as_coco.click(looking.coco_file, chosen, [file], **LIVE).success(None, js=_FETCH)
    as_picture.click(looking.picture_file, chosen, [file], **LIVE).success(None, js=_FETCH)


@dataclass(frozen=True, eq=False)
class Looking:
    """What the events of the tab do."""

    detector: Detector

    @property
    def names(self) -> list[str]:
        """The classes in the model's order."""
        return list(self.detector.names)

    def one(self, path: str | None) -> tuple[Seen, int, Any]:
        """What is found in the one picture."""
        found = analyse(self.detector, path)
        return [] if found is None else [found], 0, gr.update(visible=False, value=None)

    def many(self, paths: Sequence[str] | None) -> tuple[Seen, int, Any]:
        """What is found in several, up to a number that a page can hold."""
        files = [str(path) for path in paths or []]
        seen = [one for one in (analyse(self.detector, path) for path in files[:MOST]) if one is not None]
        if len(files) > MOST:
            seen.append(Problem(f"{len(files)} pictures were given, and the first {MOST} are shown"))
        strip = [(_small(one.address), one.name) for one in seen if isinstance(one, Found)]
        return seen, 0, gr.update(visible=len(strip) > 1, value=strip)

    def show(
        self, seen: Seen, place: int, own: bool, threshold: float, classes: list[str]
    ) -> tuple[str, str, str, Any, Any]:
        """Picture, table and sentence of the chosen one, and whether there is something to take away."""
        problems = [f"**This picture can't be read.** {one.message}" for one in seen if isinstance(one, Problem)]
        shown = self._shown(seen, own, threshold, classes)
        if not shown:
            return "", "", "\n\n".join(problems) or WELCOME, *[gr.update(interactive=False)] * 2
        found, detections = shown[min(place, len(shown) - 1)]
        words = "\n\n".join([sentence(found, detections, classes), *problems])
        parts = drawn(found, detections), rows(detections), words
        return *parts, *[gr.update(interactive=True)] * 2

    def coco_file(self, seen: Seen, place: int, own: bool, threshold: float, classes: list[str]) -> str:
        """All pictures, in a file."""
        shown = self._some(seen, own, threshold, classes)
        name = f"{Path(shown[0][0].name).stem}.coco.json" if len(shown) == 1 else "pictures.coco.json"
        file = _folder() / name
        file.write_text(json.dumps(coco(shown, self.names), indent=1), encoding="utf-8")
        return str(file)

    def picture_file(self, seen: Seen, place: int, own: bool, threshold: float, classes: list[str]) -> str:
        """The chosen picture with its boxes, in a file."""
        shown = self._some(seen, own, threshold, classes)
        found, detections = shown[min(place, len(shown) - 1)]
        file = _folder() / f"{Path(found.name).stem}.boxes.jpg"
        painted(found, detections).convert("RGB").save(file, quality=92)
        return str(file)

    def _some(self, seen: Seen, own: bool, threshold: float, classes: list[str]) -> list[tuple[Found, Any]]:
        shown = self._shown(seen, own, threshold, classes)
        if not shown:
            raise refused("There is no picture yet.")
        return shown

    def _shown(self, seen: Seen, own: bool, threshold: float, classes: list[str]) -> list[tuple[Found, Any]]:
        found = [one for one in seen if isinstance(one, Found)]
        return [(one, select(self.detector, one, None if own else threshold, classes)) for one in found]


def picked(event: gr.SelectData) -> int:
    """The place of the picture that was clicked."""
    return int(event.index)


def _small(address: str) -> Image.Image:
    picture = opened(address)
    picture.thumbnail((240, 240))
    return picture


def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="detr-ft-"))


def _pictures() -> tuple[gr.Image, gr.UploadButton, gr.HTML]:
    """The picture that comes in, or several, and the one with boxes, side by side where there is room."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            image = gr.Image(
                label="Picture",
                type="filepath",
                image_mode=None,
                sources=["upload", "webcam", "clipboard"],
                height=360,
                elem_id="image",
            )
            image.preprocess = uploaded
            several = gr.UploadButton("Several pictures at once", file_count="multiple", size="sm", elem_id="several")
        with gr.Column(scale=3, min_width=300):
            result = gr.HTML(elem_id="result", label="Detections")
    return image, several, result


def _controls(looking: Looking) -> tuple[gr.Checkbox, gr.Slider, gr.Dropdown]:
    """Whether each class has its own threshold, the one of all else, and the classes shown."""
    own = looking.detector.thresholds
    every = known(looking.names)
    told = ", ".join(f"{name} {own[name]:.2f}" for name in every[:6]) + (" ..." if len(every) > 6 else "")
    measured = (
        f"As measured when it was trained: {told}"
        if len(set(own.values())) > 1
        else f"It knows none of its own: {max(own.values()):.2f} for all"
    )
    with gr.Row():
        with gr.Column(min_width=300):
            each = gr.Checkbox(
                True, label="Each class from its own threshold on", info=measured,
                elem_id="own-thresholds",
            )  # fmt: skip
            threshold = gr.Slider(
                0, 1, value=round(fmean(own.values()), 2), step=0.01, label="One threshold for all", elem_id="threshold"
            )
        classes = gr.Dropdown(
            known(looking.names),
            value=[],
            multiselect=True,
            label="Classes (all if none is chosen)",
            min_width=300,
            elem_id="classes",
        )
    return each, threshold, classes
