"""The demo's modules are beside its app, and found from there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the demo needs gradio: pip install detr-ft[demo]")
sys.path.insert(0, str(Path(__file__).parents[2] / "demo"))
