"""The threads of a resumed run are those of its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detr_ft.workflows import resume


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The numbers of threads that were set, "free" for those of free cores."""
    numbers: list[object] = []
    monkeypatch.setattr(resume.torch, "set_num_threads", numbers.append)
    monkeypatch.setattr(resume, "use_free_cores", lambda: numbers.append("free"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    return numbers


def checkpoint_of(folder: Path, facts: dict[str, object]) -> Path:
    (folder / "state.json").write_text(json.dumps({"progress": {"step": 3}, "facts": facts}))
    return folder


def test_threads_are_those_of_the_checkpoint(chosen: list[object], tmp_path: Path) -> None:
    resume.choose_threads(checkpoint_of(tmp_path, {"threads": 3}))
    assert chosen == [3]


def test_a_new_run_and_an_old_checkpoint_use_free_cores(chosen: list[object], tmp_path: Path) -> None:
    resume.choose_threads(None)
    resume.choose_threads(checkpoint_of(tmp_path, {}))
    assert chosen == ["free", "free"]


def test_a_number_of_the_user_has_priority_and_is_reported(
    chosen: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    checkpoint = checkpoint_of(tmp_path, {"threads": 3})
    resume.choose_threads(checkpoint)
    assert chosen == []
    with caplog.at_level("INFO"):
        resume.check_changes(checkpoint, {"threads": 1}, force=False)
    assert "threads was 3, is 1" in caplog.text
    assert "exactly" not in caplog.text


def test_a_checkpoint_without_threads_has_no_difference(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        resume.check_changes(checkpoint_of(tmp_path, {}), {"threads": 1}, force=False)
    assert "threads" not in caplog.text
    assert "exactly as if" in caplog.text
