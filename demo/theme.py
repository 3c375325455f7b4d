"""The style of the page: colors for light and dark, fonts, the style sheet and the script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Liberation Sans", "Arial", "sans-serif"]
_GRADIO_5 = int(gr.__version__.split(".")[0]) < 6


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


CONTENT_POLICY = b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"
_STYLE: dict[str, Any] = {
    # As `css`, Gradio would limit the rules to its own components.
    "head": f"<style>{_read('style.css')}</style><script>{_read('script.js')}</script>",
    "theme": gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=_FONTS, font_mono=["monospace"]),
}
# Gradio 5 takes the style in `gr.Blocks`, later versions in `launch`.
PAGE_STYLE, LAUNCH_STYLE = (_STYLE, {}) if _GRADIO_5 else ({}, _STYLE)
# The share button of an image would upload it.
NO_SHARE_BUTTON: dict[str, Any] = {"show_share_button": False} if _GRADIO_5 else {"buttons": ["download", "fullscreen"]}
