"""Files that come in over the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder


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
