"""A page on this machine that shows what a detector finds in a picture: `detr-ft demo MODEL`, or run this file.

The model runs once a picture; threshold and classes are then applied to what it found.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from PIL import Image

from detr_ft.data.images import open_image
from detr_ft.drawing import draw
from detr_ft.errors import UserError
from detr_ft.inference import Detector
from detr_ft.structures import Detections

DISPLAY_EDGE = 1200  # pixels of the longest edge of the drawn picture: boxes are crisp on small and large ones alike
COLUMNS = ["class", "score", "x", "y", "width", "height"]
WELCOME = "Drop a picture on the left to begin."
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Liberation Sans", "Arial", "sans-serif"]
CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
#head h1 { font-size: 1.5rem; font-weight: 650; letter-spacing: -0.01em; margin: 0.4rem 0 0.1rem; }
#head p { color: var(--body-text-color-subdued); margin: 0 0 0.2rem; }
#status p { font-size: 0.95rem; margin: 0; }
footer { display: none !important; }
"""
LOOK: dict[str, Any] = {
    "css": CSS,
    "theme": gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=["monospace"]),
}
# What Gradio 5 and later versions name or place differently. Its share button would upload the picture.
OLD = int(gr.__version__.split(".")[0]) < 6
LOOK_IN_BLOCKS, LOOK_AT_LAUNCH = (LOOK, {}) if OLD else ({}, LOOK)
NO_SHARING: dict[str, Any] = {"show_share_button": False} if OLD else {"buttons": ["download", "fullscreen"]}


@dataclass(frozen=True)
class Found:
    """What the model found in one picture: kept for the session, so that no control runs the model again."""

    name: str
    size: tuple[int, int]
    picture: Image.Image  # at display size
    detections: Detections
    seconds: float


@dataclass(frozen=True)
class Problem:
    """Why a picture could not be read, for the person before the screen."""

    message: str


def analyse(detector: Detector, path: str | None) -> Found | Problem | None:
    """Run the model on an uploaded file."""
    if path is None:
        return None
    try:
        image = open_image(path)
    except UserError as error:
        return Problem(str(error).replace(path, Path(path).name))
    start = time.perf_counter()
    detections = detector.detect([image])[0]
    seconds = time.perf_counter() - start
    scale = DISPLAY_EDGE / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    return Found(
        Path(path).name, image.size, image.resize((width, height), Image.Resampling.LANCZOS), detections, seconds
    )


def select(found: Found, names: Sequence[str], threshold: float, classes: Sequence[str]) -> Detections:
    """The detections whose score is above the threshold, of the chosen classes; of all if none is chosen."""
    above = found.detections.above(threshold)
    wanted = {names.index(name) for name in classes} or set(range(len(names)))
    keep = [index for index, label in enumerate(above.labels.tolist()) if label in wanted]
    return Detections(above.boxes[keep], above.scores[keep], above.labels[keep])


def drawn(found: Found, names: Sequence[str], shown: Detections) -> Image.Image:
    """The picture at display size with its boxes."""
    scale = shown.boxes.new_tensor([found.picture.width / found.size[0], found.picture.height / found.size[1]] * 2)
    return draw(found.picture, shown.boxes * scale, shown.labels, names, shown.scores)


def rows(names: Sequence[str], shown: Detections) -> list[list[Any]]:
    """The table: class, score, and the box's left, top, width and height in pixels of the upright picture."""
    table = []
    for (x0, y0, x1, y1), score, label in zip(
        shown.boxes.tolist(), shown.scores.tolist(), shown.labels.tolist(), strict=True
    ):
        table.append([names[label], round(score, 3), round(x0), round(y0), round(x1 - x0), round(y1 - y0)])
    return table


def sentence(found: Found, names: Sequence[str], shown: Detections) -> str:
    """What is shown, in a line: how many of what, the picture's size, the model's time."""
    counts = Counter(names[label] for label in shown.labels.tolist())
    what = ", ".join(f"{count} {name}" for name, count in counts.most_common(5))
    more = f" and {len(counts) - 5} more classes" if len(counts) > 5 else ""
    objects = "1 object" if len(shown.labels) == 1 else f"{len(shown.labels) or 'No'} objects"
    width, height = found.size
    facts = f"{width} × {height} pixels, {found.seconds * 1000:.0f} ms"
    return f"**{objects}** at this threshold{': ' if what else ''}{what}{more} — {facts}"


def coco(found: Found, names: Sequence[str], shown: Detections) -> dict[str, Any]:
    """The shown detections as a COCO document; a category's id is the model's own index."""
    annotations = []
    for index, ((x0, y0, x1, y1), score, label) in enumerate(
        zip(shown.boxes.tolist(), shown.scores.tolist(), shown.labels.tolist(), strict=True), start=1
    ):
        box = [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)]
        annotations.append(
            {
                "id": index,
                "image_id": 1,
                "category_id": label,
                "bbox": box,
                "area": round(box[2] * box[3], 2),
                "iscrowd": 0,
                "score": round(score, 4),
            }
        )
    width, height = found.size
    return {
        "images": [{"id": 1, "file_name": found.name, "width": width, "height": height}],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
        "annotations": annotations,
    }


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


def build(detector: Detector, examples: Sequence[str] = ()) -> gr.Blocks:
    """The page of a detector; `examples` are paths of pictures to offer."""
    names = list(detector.names)
    with gr.Blocks(title="detr-ft demo", analytics_enabled=False, delete_cache=(600, 3600), **LOOK_IN_BLOCKS) as page:
        gr.Markdown(
            f"# What the detector sees\nGive it a picture: it marks what it finds among {_classes(names)}. "
            "Nothing leaves this machine.",
            elem_id="head",
        )
        with gr.Row():
            image = gr.Image(
                label="Picture",
                type="filepath",
                image_mode=None,
                sources=["upload", "clipboard"],
                height=420,
                scale=2,
                elem_id="image",
            )
            # Gradio would open the file itself, with a message for programmers; `open_image` reads and explains.
            image.preprocess = lambda payload: None if payload is None else payload.path
            result = gr.Image(
                label="Detections", format="png", interactive=False, height=420, scale=3, elem_id="result", **NO_SHARING
            )
        status = gr.Markdown(WELCOME, elem_id="status")
        with gr.Row():
            threshold = gr.Slider(0, 1, value=0.5, step=0.01, label="Threshold", elem_id="threshold")
            classes = gr.Dropdown(
                names, value=[], multiselect=True, label="Classes (all if none is chosen)", elem_id="classes"
            )
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

        image.change(lambda path: analyse(detector, path), [image], [found]).then(render, **shown)
        for control in (threshold, classes):
            control.change(render, **shown, show_progress="hidden", trigger_mode="always_last")
    return page


def _classes(names: Sequence[str]) -> str:
    listed = ", ".join(names[:6])
    return f"{listed} and {len(names) - 6} other classes" if len(names) > 6 else listed


def launch(page: gr.Blocks, port: int | None) -> str:
    """Serve the page on this machine alone, without waiting; returns its address."""
    try:
        _, url, _ = page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            allowed_paths=[],
            max_file_size="20mb",
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
            **LOOK_AT_LAUNCH,
        )
    except OSError as error:
        raise UserError(
            f"the demo can't listen on port {port or '7860 to 7959'}: {error}; give another --port"
        ) from error
    return url


def main(argv: Sequence[str] | None = None) -> None:
    """Load the model, serve the page, print its address on stderr, and stay until interrupted."""
    parser = argparse.ArgumentParser(prog="detr-ft demo", description=__doc__)
    parser.add_argument("model", nargs="?", default="embedded:small", help="a run, a folder or a name on the Hub")
    parser.add_argument("--port", type=int, help="the port on 127.0.0.1; a free one from 7860 on if left out")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="detr-ft-demo-") as folder:
        # Everything uploaded or made lies in here, and goes with the process.
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = folder
        page = build(Detector.load(arguments.model))
        print(f"the demo is at {launch(page, arguments.port)} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        page.block_thread()


if __name__ == "__main__":
    main()
