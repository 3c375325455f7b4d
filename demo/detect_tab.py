"""The tab Detect: the model runs once for each image; controls select from its detections."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import gradio as gr
from controls import LIVE_EVENT, SESSION_STATE_SECONDS, page_error, upload_path
from detect import (
    DetectedImage,
    Problem,
    coco_document,
    detect_file,
    detections_table,
    distinct_names,
    draw_image,
    image_svg,
    join_names,
    select,
    summary,
)
from markup import fit, from_data_uri
from PIL import Image

from detr_ft.inference import Detector
from detr_ft.structures import Detections

MAX_IMAGES = 24
_WELCOME = "Drop, choose or paste an image to begin."
_THUMBNAIL_EDGE_PX = 240
_MAX_THRESHOLDS_SHOWN = 6
# A download needs a file when its button is pressed. The visible button writes the file into a second, hidden one.
_CLICK_HIDDEN_BUTTON = "() => setTimeout(() => document.querySelector('#file').click(), 300)"
Results = list[DetectedImage | Problem]


def build(detector: Detector, images: Sequence[str]) -> None:
    """Build the tab inside a page; `images` are paths of images to offer."""
    handlers = DetectHandlers(detector)
    gr.Markdown(f"The model detects {join_names(detector.names)}.")
    image, several, result = _image_row()
    status = gr.Markdown(_WELCOME, elem_id="status")
    strip = gr.Gallery(
        visible=False,
        columns=8,
        height=150,
        object_fit="contain",
        allow_preview=False,
        label="Images",
        elem_id="strip",
    )
    by_class, threshold, classes = _selection_row(detector)
    if images:
        gr.Examples([[path] for path in images], inputs=[image], label="Examples", cache_examples=False)
    table = gr.HTML(elem_id="table")
    with gr.Row():
        as_coco = gr.Button("Download as COCO JSON", interactive=False, size="sm", elem_id="download")
        as_image = gr.Button("Download the image", interactive=False, size="sm", elem_id="download-image")
        file = gr.DownloadButton("file", elem_id="file")

    results = gr.State([], time_to_live=SESSION_STATE_SECONDS)
    index = gr.State(0, time_to_live=SESSION_STATE_SECONDS)
    inputs = [results, index, by_class, threshold, classes]
    outputs = [result, table, status, as_coco, as_image]
    show: dict[str, Any] = {"fn": handlers.show, "inputs": inputs, "outputs": outputs, **LIVE_EVENT}
    image.change(handlers.detect_one, [image], [results, index, strip], api_name=False).then(**show)
    several.upload(handlers.detect_several, [several], [results, index, strip], api_name=False).then(**show)
    strip.select(selected_index, outputs=[index], **LIVE_EVENT).then(**show)
    threshold.input(lambda: False, outputs=[by_class], **LIVE_EVENT)
    for control in (by_class, threshold, classes):
        control.change(**show, trigger_mode="always_last")
    as_coco.click(handlers.write_coco, inputs, [file], **LIVE_EVENT).success(None, js=_CLICK_HIDDEN_BUTTON)
    as_image.click(handlers.write_image, inputs, [file], **LIVE_EVENT).success(None, js=_CLICK_HIDDEN_BUTTON)


@dataclass(frozen=True, eq=False)
class DetectHandlers:
    """The event handlers of the tab."""

    detector: Detector

    def detect_one(self, path: str | None) -> tuple[Results, int, Any]:
        """Run the model on an image and hide the strip of thumbnails."""
        result = detect_file(self.detector, path)
        return [] if result is None else [result], 0, gr.update(visible=False, value=None)

    def detect_several(self, paths: Sequence[str] | None) -> tuple[Results, int, Any]:
        """Run the model on the first `MAX_IMAGES` of several images and show their thumbnails."""
        files = [str(path) for path in paths or []]
        detected = (detect_file(self.detector, path) for path in files[:MAX_IMAGES])
        results = [result for result in detected if result is not None]
        if len(files) > MAX_IMAGES:
            results.append(Problem(f"Only the first {MAX_IMAGES} of {len(files)} images are shown."))
        strip = [(_thumbnail(result), result.name) for result in results if isinstance(result, DetectedImage)]
        return results, 0, gr.update(visible=len(strip) > 1, value=strip)

    def show(
        self, results: Results, index: int, by_class: bool, threshold: float, classes: list[str]
    ) -> tuple[str, str, str, Any, Any]:
        """Return image, table and status of the current image, and the states of the download buttons."""
        problems = [result.message for result in results if isinstance(result, Problem)]
        selections = self._select(results, by_class, threshold, classes)
        if not selections:
            return "", "", "\n\n".join(problems) or _WELCOME, *[gr.update(interactive=False)] * 2
        result, selected = selections[min(index, len(selections) - 1)]
        status = "\n\n".join([summary(result, selected, classes), *problems])
        return image_svg(result, selected), detections_table(selected), status, *[gr.update(interactive=True)] * 2

    def write_coco(self, results: Results, index: int, by_class: bool, threshold: float, classes: list[str]) -> str:
        """Write the selected detections of all images to a file and return its path."""
        selections = self._select_some(results, by_class, threshold, classes)
        name = f"{Path(selections[0][0].name).stem}.coco.json" if len(selections) == 1 else "images.coco.json"
        file = _new_folder() / name
        file.write_text(json.dumps(coco_document(selections, self.detector.names), indent=1), encoding="utf-8")
        return str(file)

    def write_image(self, results: Results, index: int, by_class: bool, threshold: float, classes: list[str]) -> str:
        """Write the current image with its detections to a file and return its path."""
        selections = self._select_some(results, by_class, threshold, classes)
        result, selected = selections[min(index, len(selections) - 1)]
        file = _new_folder() / f"{Path(result.name).stem}.boxes.jpg"
        draw_image(result, selected).convert("RGB").save(file, quality=92)
        return str(file)

    def _select_some(
        self, results: Results, by_class: bool, threshold: float, classes: list[str]
    ) -> list[tuple[DetectedImage, Detections]]:
        selections = self._select(results, by_class, threshold, classes)
        if not selections:
            raise page_error("There is no image. Upload one first.")
        return selections

    def _select(
        self, results: Results, by_class: bool, threshold: float, classes: list[str]
    ) -> list[tuple[DetectedImage, Detections]]:
        images = [result for result in results if isinstance(result, DetectedImage)]
        limit = None if by_class else threshold
        return [(image, select(self.detector, image, limit, classes)) for image in images]


def selected_index(event: gr.SelectData) -> int:
    """Return the index of the thumbnail that was clicked."""
    return int(event.index)


def _thumbnail(result: DetectedImage) -> Image.Image:
    image = from_data_uri(result.data_uri)
    return image.resize(fit(image.size, _THUMBNAIL_EDGE_PX), Image.Resampling.BICUBIC)


def _new_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="detr-ft-"))


def _image_row() -> tuple[gr.Image, gr.UploadButton, gr.HTML]:
    """Make the inputs for one image and for several, and the image with detections beside them."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            image = gr.Image(
                label="Image",
                type="filepath",
                image_mode=None,
                sources=["upload", "webcam", "clipboard"],
                height=360,
                elem_id="image",
            )
            image.preprocess = upload_path
            several = gr.UploadButton("Upload several images", file_count="multiple", size="sm", elem_id="several")
        with gr.Column(scale=3, min_width=300):
            result = gr.HTML(elem_id="result", label="Detections")
    return image, several, result


def _selection_row(detector: Detector) -> tuple[gr.Checkbox, gr.Slider, gr.Dropdown]:
    """Make the switch for thresholds by class, the common threshold, and the selection of classes."""
    thresholds, names = detector.thresholds, distinct_names(detector.names)
    listed = ", ".join(f"{name} {thresholds[name]:.2f}" for name in names[:_MAX_THRESHOLDS_SHOWN])
    info = (
        f"Measured on the validation split: {listed}{', ...' if len(names) > _MAX_THRESHOLDS_SHOWN else ''}"
        if len(set(thresholds.values())) > 1
        else f"The model has no measured thresholds: {max(thresholds.values()):.2f} for every class"
    )
    with gr.Row():
        with gr.Column(min_width=300):
            by_class = gr.Checkbox(True, label="A threshold for each class", info=info, elem_id="class-thresholds")
            threshold = gr.Slider(
                0,
                1,
                value=round(fmean(thresholds.values()), 2),
                step=0.01,
                label="One threshold for all classes",
                elem_id="threshold",
            )
        classes = gr.Dropdown(
            names, value=[], multiselect=True, label="Classes (none: all)", min_width=300, elem_id="classes"
        )
    return by_class, threshold, classes
