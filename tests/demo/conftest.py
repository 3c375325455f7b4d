"""The modules of the demo are imported from its folder, as the demo itself does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the demo needs gradio: pip install detr-ft[demo]")
sys.path.insert(0, str(Path(__file__).parents[2] / "demo"))
