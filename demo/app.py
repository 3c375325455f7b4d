"""The demo: a page with the detections of a model and their matching with the ground truth.

`detr-ft demo MODEL` and the Spaces of `detr-ft push --space` call `serve`. They put this folder on `sys.path`.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # gradio reads it at import

import api
import compare_tab
import detect_tab
import gradio as gr
import inside_tab
import lesson_tab
import matching_tab
from examples import Example, load_examples
from PIL import Image
from requests_guard import MAX_FILE_BYTES, HostGuard, SizeGuard, check_patterns, served_hosts
from starlette.middleware import Middleware
from theme import CONTENT_POLICY, LAUNCH_STYLE, PAGE_STYLE
from uploads import return_freed_memory

from detr_ft.criterion import SetCriterion, detr_criterion
from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.utils.threads import use_free_cores
from detr_ft.workflows.splits import DataOptions
from detr_ft.workflows.trained_criterion import trained_by

LOCAL_NOTE = "Images stay on this machine."
_MAX_SESSIONS = 40  # with stored images, at most 24 in the tab Detect; older ones are dropped
_MAX_WAITING_EVENTS = 200  # of all users; with more the page shows that it is busy
_DELETION_PERIOD_SECONDS, _MAX_FILE_AGE_SECONDS = 3600, 86400  # of uploaded and written files
_MAX_OFFERED_IMAGES = 4  # in the tab Detect


class ContentPolicyMiddleware:
    """Adds a content security policy to every response.

    Older versions of Gradio would load a script from a CDN.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        async def send_with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", CONTENT_POLICY)]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def build_page(
    detector: Detector,
    images: Sequence[str] = (),
    examples: Sequence[Example] = (),
    note: str = LOCAL_NOTE,
    other: Detector | None = None,
    criterion: SetCriterion | None = None,
) -> gr.Blocks:
    """Build the page of a detector.

    `images` are paths that the tab Detect offers, `examples` are images with ground truth, and `note` states where uploaded
    images go. The tab Compare shows the detector `other`. `criterion` is that of the training; DETR's own by default.
    """
    lifetime = (_DELETION_PERIOD_SECONDS, _MAX_FILE_AGE_SECONDS)
    with gr.Blocks(title="detr-ft demo", analytics_enabled=False, delete_cache=lifetime, **PAGE_STYLE) as page:
        gr.Markdown(
            f"# Detections and matching\nThe objects that a model detects, and how training matches its queries with objects. {note}",
            elem_id="head",
        )
        with gr.Tab("Detect", id="detect"):
            detect_tab.build(detector, images)
        with gr.Tab("Matching", id="matching"):
            matching_tab.build(page, detector, examples, criterion or detr_criterion())
        with gr.Tab("Lesson", id="lesson"):
            lesson_tab.build(page)
        with gr.Tab("Inside", id="inside"):
            inside_tab.build(page, detector, examples)
        with gr.Tab("Compare", id="compare"):
            compare_tab.build(page, detector, other, examples)
        api.add_endpoints(detector)
    # Without direct calls of the endpoints, which would not wait in the queue.
    page.queue(api_open=False, max_size=_MAX_WAITING_EVENTS, default_concurrency_limit=1)
    return page


def launch(page: gr.Blocks, host: str, port: int | None, folder: Path, allowed_hosts: Sequence[str] = ()) -> str:
    """Start the server of a page in the background and return its address, with the names of proxies.

    `folder` stores uploaded files. `allowed_hosts` are names of proxies, besides this machine's own. Raises InputError if
    the port is in use.
    """
    hosts = served_hosts(host, allowed_hosts, os.environ)
    middleware = [
        *([] if hosts is None else [Middleware(HostGuard, hosts=hosts)]),
        Middleware(SizeGuard, folder=folder, permanent=frozenset(folder.rglob("*"))),
        Middleware(ContentPolicyMiddleware),
    ]
    try:
        launched: tuple[Any, str, str] = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            allowed_paths=[],
            max_file_size=MAX_FILE_BYTES,
            state_session_capacity=_MAX_SESSIONS,
            ssr_mode=False,
            app_kwargs={"middleware": middleware},
            quiet=True,
            prevent_thread_lock=True,
            **LAUNCH_STYLE,
        )
    except OSError as error:
        raise InputError(
            f"the demo can't listen on port {port or '7860 to 7959'}: {error}. Use another --port."
        ) from error
    return launched[1] + (f" and its proxies ({', '.join(hosts)})" if hosts else "")


def serve(
    model: str,
    host: str = "127.0.0.1",
    port: int | None = None,
    images: Sequence[Path] = (),
    note: str = LOCAL_NOTE,
    data: str | None = None,
    options: DataOptions = DataOptions(),
    compare: str | None = None,
    trust_code: bool = False,
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Serve the page of a model until interrupted.

    Without `images` it offers those of the data, which are read with `options`. `trust_code` runs the code of the run's
    criterion, and `allowed_hosts` are names of proxies. Raises InputError.
    """
    check_patterns(allowed_hosts)
    return_freed_memory()
    use_free_cores()
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # the limits of uploads are lower
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the temporary folder is deleted
    with tempfile.TemporaryDirectory(prefix="detr-ft-demo-") as folder:
        # All uploaded and written files are in this folder, which is deleted with the process.
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = folder
        detector = Detector.load(model)
        examples = load_examples(model, detector.names, data, options)
        offered = [shutil.copy(image, folder) for image in images] or [
            example.save(Path(folder), number) for number, example in enumerate(examples[:_MAX_OFFERED_IMAGES], start=1)
        ]
        other = Detector.load(compare) if compare else None
        page = build_page(detector, offered, examples, note, other, trained_by(model, detector, trust_code))
        print(
            f"the demo is at {launch(page, host, port, Path(folder), allowed_hosts)} (Ctrl-C stops it)",
            file=sys.stderr,
            flush=True,
        )
        page.block_thread()
