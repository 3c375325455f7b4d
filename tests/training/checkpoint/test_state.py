"""Checkpoints whose files have other values than those that the trainer writes."""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import make_trainer, stop_after, unprepared_trainer

from detr_ft.errors import InputError, Interrupted
from detr_ft.training.checkpoint.state import Progress, read_facts, read_state


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("state") / "run"
    trainer = make_trainer(tiny_checkpoint, folder, logging_steps=1, ema_decay=0.9)
    stop_after(trainer, 5)
    with pytest.raises(Interrupted):
        trainer.train()
    return folder


@pytest.fixture
def checkpoint(interrupted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(interrupted, tmp_path / "run")) / "checkpoints/step-5"


def resume(start: Path, checkpoint: Path) -> None:
    unprepared_trainer(start, checkpoint.parents[1], checkpoint=checkpoint, logging_steps=1, ema_decay=0.9).setup()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"progress": None}, "progress must be a JSON object, got None"),
        ({"progress": [5]}, "progress must be a JSON object"),
        ({"progress": {}}, r"progress\.step is missing"),
        ({"progress": {"step": "5"}}, r"progress\.step must be a whole number from 0, got '5'"),
        ({"progress": {"step": 5, "epoch": -1}}, r"progress\.epoch must be a whole number from 0, got -1"),
        ({"progress": {"step": True}}, r"progress\.step must be"),
        ({"progress": {"step": 5, "place": 1.5}}, r"progress\.place must be"),
        ({"progress": {"step": 5, "seconds": float("nan")}}, r"progress\.seconds must be a number"),
    ],
)
def test_progress_of_another_kind_is_named(
    tiny_checkpoint: Path, checkpoint: Path, change: dict[str, Any], words: str
) -> None:
    state = read_state(checkpoint)
    (checkpoint / "state.json").write_text(json.dumps(state | change))
    with pytest.raises(InputError, match=rf"step-5/state\.json: .*{words}.*Restore"):
        resume(tiny_checkpoint, checkpoint)


def test_entries_of_other_versions_keep_their_default(checkpoint: Path) -> None:
    (checkpoint / "state.json").write_text(json.dumps({"progress": {"step": 5, "later": "x"}}))
    assert Progress.read(checkpoint) == Progress(step=5)
    with pytest.raises(InputError, match="facts must be a JSON object"):
        read_facts(checkpoint)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[]"])
@pytest.mark.parametrize("name", ["state.json", "training.pt", "model.safetensors"])
def test_a_damaged_file_is_named(tiny_checkpoint: Path, checkpoint: Path, name: str, content: bytes) -> None:
    (checkpoint / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"step-5/{name}: .*Restore the folder") as caught:
        resume(tiny_checkpoint, checkpoint)
    assert "weights_only" not in str(caught.value)
    (checkpoint / name).unlink()
    with pytest.raises(InputError, match=rf"step-5/{name}: can't be read"):
        resume(tiny_checkpoint, checkpoint)


def cut_moment(tensors: dict[str, Any]) -> None:
    tensors["optimizer"][3]["exp_avg"] = torch.zeros(1, 2, 3)


TENSORS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no optimizer": (lambda tensors: tensors.pop("optimizer"), "optimizer must be a Mapping, got NoneType"),
    "a list of partners": (lambda tensors: tensors.update(partners=[1]), "partners must be a Tensor, got list"),
    "a moment of another shape": (cut_moment, r"its moments are not those.*model\.freeze"),
    "no moment": (lambda tensors: tensors["optimizer"][0].pop("exp_avg_sq"), "its moments are not those"),
    "an unknown parameter": (lambda tensors: tensors["optimizer"].update({999: {}}), "its moments are not those"),
    "moments by name": (lambda tensors: tensors["optimizer"].update(x={}), "its moments are not those"),
    "no average": (lambda tensors: tensors["ema"].clear() or tensors["ema"].update(x=torch.ones(1)), "saved average"),
    "an average of texts": (lambda tensors: tensors["ema"].update({next(iter(tensors["ema"])): "x"}), "another kind"),
    "no sums": (lambda tensors: tensors["since"].clear(), "another kind"),
    "sums of another kind": (lambda tensors: tensors["since"].update(terms=[1]), "another kind"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_of_another_kind_are_named(
    tiny_checkpoint: Path, checkpoint: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    change, words = TENSORS[name]
    tensors = torch.load(checkpoint / "training.pt", weights_only=True)
    change(tensors)
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    (checkpoint / "training.pt").write_bytes(buffer.getvalue())
    log = (checkpoint.parents[1] / "log.jsonl").read_bytes()
    with pytest.raises(InputError, match=words) as caught:
        resume(tiny_checkpoint, checkpoint)
    assert "training.pt" in str(caught.value) or "average" in str(caught.value)
    assert (checkpoint.parents[1] / "log.jsonl").read_bytes() == log


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", b"", b"[]", b"null", b"{", b'{"loss": 1.0}', b'{"step": "2", "loss": 1.0}', b'{"step": 2, "loss": null}',
     b'{"step": 2, "loss": NaN}', b'{"step": 2, "map": "high"}', b"[" * 50_000],
)  # fmt: skip
def test_a_damaged_line_of_the_log_is_named_and_left_out(
    tiny_checkpoint: Path, checkpoint: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    log = checkpoint.parents[1] / "log.jsonl"
    lines = log.read_bytes().splitlines()
    log.write_bytes(b"\n".join([lines[0], line, *lines[2:], b'{"step": 6, "lo']))
    with caplog.at_level(logging.WARNING):
        resume(tiny_checkpoint, checkpoint)
    assert f"log.jsonl: {len(lines) - 1} of {len(lines)} rows are left, line 2 is damaged" in caplog.text
    assert log.read_bytes().splitlines() == [lines[0], *lines[2:]]


def test_a_log_that_cannot_be_read_is_an_error(tiny_checkpoint: Path, checkpoint: Path) -> None:
    log = checkpoint.parents[1] / "log.jsonl"
    log.unlink()
    log.mkdir()
    with pytest.raises(InputError, match=r"log\.jsonl: can't be read"):
        resume(tiny_checkpoint, checkpoint)
