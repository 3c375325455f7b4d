"""A page on this machine that shows what a detector finds in a picture, and how training matches it with the truth.

`detr-ft demo MODEL` and the Spaces of `detr-ft push --space` call `serve`. The modules are found beside this one on `sys.path`.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import api
import compare_tab
import detect_tab
import gradio as gr
import inside_tab
import lesson_tab
import matching_tab
from examples import Example, examples_of
from starlette.middleware import Middleware
from theme import LOOK_AT_LAUNCH, LOOK_IN_BLOCKS, POLICY

from detr_ft.criterion import SetCriterion, detr_criterion
from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.workflows.trained_criterion import trained_by

NOTE = "Nothing leaves this machine."


_SESSIONS = 200  # whose pictures are kept, the latest ones


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


def build(
    detector: Detector,
    pictures: Sequence[str] = (),
    given: Sequence[Example] = (),
    note: str = NOTE,
    second: Detector | None = None,
    criterion: SetCriterion | None = None,
) -> gr.Blocks:
    """The page of a detector: `pictures` are paths to offer, `given` images with truth; `note` says where pictures go, and `criterion`
    is what it was trained by, left out: DETR's own.
    """
    with gr.Blocks(title="detr-ft demo", analytics_enabled=False, delete_cache=(3600, 86400), **LOOK_IN_BLOCKS) as page:
        gr.Markdown(
            f"# What the detector sees\nAnd how it is taught: which of its answers is held against which object. {note}",
            elem_id="head",
        )
        with gr.Tab("Detect", id="detect"):
            detect_tab.tab(detector, pictures)
        with gr.Tab("Matching", id="matching"):
            matching_tab.tab(page, detector, given, criterion or detr_criterion())
        with gr.Tab("Lesson", id="lesson"):
            lesson_tab.tab(page)
        with gr.Tab("Inside", id="inside"):
            inside_tab.tab(page, detector, given)
        with gr.Tab("Compare", id="compare"):
            compare_tab.tab(page, detector, second, given)
        api.endpoints(detector)
    return page


def launch(page: gr.Blocks, host: str, port: int | None) -> str:
    """Serve the page without waiting, on this machine alone unless another host is given; returns its address."""
    try:
        launched: tuple[Any, str, str] = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            allowed_paths=[],
            max_file_size="20mb",
            state_session_capacity=_SESSIONS,
            ssr_mode=False,
            app_kwargs={"middleware": [Middleware(OwnServerOnly)]},
            quiet=True,
            prevent_thread_lock=True,
            **LOOK_AT_LAUNCH,
        )
    except OSError as error:
        raise InputError(
            f"the demo can't listen on port {port or '7860 to 7959'}: {error}; give another --port"
        ) from error
    return launched[1]


def serve(
    model: str,
    host: str = "127.0.0.1",
    port: int | None = None,
    pictures: Sequence[Path] = (),
    note: str = NOTE,
    data: str | None = None,
    compare: str | None = None,
) -> None:
    """Serve the page of a model until interrupted. Without `pictures` it offers those of the data."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder below goes then, too
    with tempfile.TemporaryDirectory(prefix="detr-ft-demo-") as folder:
        # Everything uploaded or made lies in here, and goes with the process.
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = folder
        detector = Detector.load(model)
        given = examples_of(model, detector.names, data)
        shown = [shutil.copy(picture, folder) for picture in pictures] or [
            one.saved(Path(folder), number) for number, one in enumerate(given[:4], start=1)
        ]
        second = Detector.load(compare) if compare else None
        page = build(detector, shown, given, note, second, trained_by(model, detector))
        print(f"the demo is at {launch(page, host, port)} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        page.block_thread()
