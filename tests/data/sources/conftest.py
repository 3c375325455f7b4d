"""Data sets that the tests of several files read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def yolo(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Two splits of images of 40x30 pixels; the first image is labelled, the second is background."""
    for split in ("train", "valid"):
        for name in ("a", "b"):
            write_image(tmp_path / split / "images" / f"{name}.png")
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "a.txt").write_text("1 0.5 0.5 0.25 0.2\n")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnames: [cone, cube]\n")
    return tmp_path
