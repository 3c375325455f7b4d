"""Settings of the training loop."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from detr_ft.training.settings import TrainSettings


def test_the_output_folder_may_be_a_path(tmp_path: Path) -> None:
    settings = TrainSettings(output_dir=tmp_path / "run")  # type: ignore[arg-type]
    assert settings.output_dir == str(tmp_path / "run")
    assert settings == TrainSettings(output_dir=f"{tmp_path}/run")
    with pytest.raises(ValidationError):
        TrainSettings(output_dir=3)  # type: ignore[arg-type]
