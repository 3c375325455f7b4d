"""How the page looks: one language of colours and lines, in the light and in the dark, and the little script of the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Liberation Sans", "Arial", "sans-serif"]


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


POLICY = b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"
LOOK: dict[str, Any] = {
    # As `css`, Gradio would rewrite the rules so that they apply to its components alone.
    "head": f"<style>{_read('style.css')}</style><script>{_read('script.js')}</script>",
    "theme": gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=["monospace"]),
}
# What Gradio 5 and later versions name or place differently. Its share button would upload the picture.
OLD = int(gr.__version__.split(".")[0]) < 6
LOOK_IN_BLOCKS, LOOK_AT_LAUNCH = (LOOK, {}) if OLD else ({}, LOOK)
NO_SHARING: dict[str, Any] = {"show_share_button": False} if OLD else {"buttons": ["download", "fullscreen"]}
