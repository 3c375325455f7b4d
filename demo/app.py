"""A page on this machine that shows what a detector finds in a picture: `detr-ft demo MODEL`, or run this file.

The model runs once a picture; threshold and classes are then applied to what it found.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
sys.path.insert(0, str(Path(__file__).parent))  # the modules beside this one, however it is started

import gradio as gr
from detect import Found, Problem, analyse, coco, drawn, known, listed, rows, select, sentence
from gradio.utils import get_upload_folder
from PIL import Image
from starlette.middleware import Middleware

from detr_ft.console import exit_with_status
from detr_ft.data.generated import CLASSES, generate
from detr_ft.errors import UserError
from detr_ft.inference import Detector

NOTE = "Nothing leaves this machine."
COLUMNS = ["class", "score", "x", "y", "width", "height"]
WELCOME = "Drop, choose or paste a picture to begin."
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Liberation Sans", "Arial", "sans-serif"]
STYLE = """<style>
.gradio-container > .main { max-width: 1180px !important; margin: 0 auto !important; padding: 20px 24px !important; }
#head h1 { font-size: 1.5rem; font-weight: 650; letter-spacing: -0.01em; margin: 0 0 0.1rem; }
#head p { opacity: 0.75; margin: 0; }
#status { min-height: 1.6rem; }
#status p { font-size: 0.95rem; margin: 0; }
#table * { font-family: inherit !important; }
footer { display: none !important; }
.gradio-container, .gradio-container > .main, .gradio-container .column { min-width: 0 !important; }
@media (max-width: 640px) {
  .gradio-container > .main { padding: 12px !important; }
  #image, #result { height: 270px !important; }
  #table * { font-size: 0.8rem !important; }
}
</style>"""
POLICY = b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"
LOOK: dict[str, Any] = {
    "head": STYLE,  # `css` would be rewritten to reach the components alone
    "theme": gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=["monospace"]),
}
# What Gradio 5 and later versions name or place differently. Its share button would upload the picture.
OLD = int(gr.__version__.split(".")[0]) < 6
LOOK_IN_BLOCKS, LOOK_AT_LAUNCH = (LOOK, {}) if OLD else ({}, LOOK)
NO_SHARING: dict[str, Any] = {"show_share_button": False} if OLD else {"buttons": ["download", "fullscreen"]}


class OwnServerOnly:
    """Lets the page load from its own server alone: older versions of Gradio ask a content network for a script."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        async def send_with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await self.app(scope, receive, send_with_policy)


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


def build(detector: Detector, examples: Sequence[str] = (), note: str = NOTE) -> gr.Blocks:
    """The page of a detector; `examples` are paths of pictures to offer, and `note` says where pictures go."""
    names = list(detector.names)
    with gr.Blocks(title="detr-ft demo", analytics_enabled=False, delete_cache=(3600, 86400), **LOOK_IN_BLOCKS) as page:
        gr.Markdown(
            f"# What the detector sees\nGive it a picture: it marks what it finds among {listed(names)}. {note}",
            elem_id="head",
        )
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
    return page


def _pictures() -> tuple[gr.Image, gr.Image]:
    """The picture that comes in and the one with boxes, side by side where there is room."""
    size: dict[str, Any] = {"height": 420, "min_width": 300}
    with gr.Row():
        image = gr.Image(
            label="Picture",
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            scale=2,
            elem_id="image",
            **size,
        )
        # Gradio would open the file itself, with a message for programmers; `open_image` reads and explains.
        image.preprocess = _uploaded
        result = gr.Image(
            label="Detections", format="png", interactive=False, scale=3, elem_id="result", **size, **NO_SHARING
        )
    return image, result


def _uploaded(payload: Any) -> str | None:
    """The path of an uploaded file; a path that a request made up, outside the folder of uploads, is refused."""
    if payload is None or payload.path is None:
        return None
    if not Path(payload.path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise gr.Error("Only a picture that was uploaded here is read.")
    return str(payload.path)


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


def scenes(names: Sequence[str], folder: Path) -> list[str]:
    """Pictures to offer for a model of generated classes, written into a folder; none for any other model."""
    sets = [name for name, classes in CLASSES.items() if set(classes) == set(names)]
    paths = []
    for name in sets[:1]:
        for row in generate(f"{name}?train=0&validation=0&test=4&seed=77")["test"]:
            path = folder / f"scene {len(paths) + 1}.png"
            path.write_bytes(row["image"]["bytes"])
            paths.append(str(path))
    return paths


def launch(page: gr.Blocks, port: int | None, host: str = "127.0.0.1") -> str:
    """Serve the page without waiting, on this machine alone unless another host is given; returns its address."""
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            allowed_paths=[],
            max_file_size="20mb",
            ssr_mode=False,
            app_kwargs={"middleware": [Middleware(OwnServerOnly)]},
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
    serve(arguments.model, "127.0.0.1", arguments.port)


def serve(model: str, host: str, port: int | None, examples: Sequence[Path] = (), note: str = NOTE) -> None:
    """Serve the page of a model until interrupted; without examples, with generated ones where its classes are generated."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder below goes then, too
    with tempfile.TemporaryDirectory(prefix="detr-ft-demo-") as folder:
        # Everything uploaded or made lies in here, and goes with the process.
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = folder
        detector = Detector.load(model)
        shown = [shutil.copy(example, folder) for example in examples] or scenes(detector.names, Path(folder))
        page = build(detector, shown, note)
        print(f"the demo is at {launch(page, port, host)} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        page.block_thread()


if __name__ == "__main__":
    exit_with_status(main)()
