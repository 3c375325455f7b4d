"""Damaged files of a run: every verb that reads one names it, or succeeds without it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import detr_ft
from detr_ft.errors import InputError
from detr_ft.hub.card import model_card
from detr_ft.inference import Detector
from detr_ft.utils.complete_folder import digest_of
from detr_ft.workflows.run import TrainOutcome

SPEC = "generated:workshop?train=8&validation=2&edge=64"


def train(start: Path, folder: Path, resume: bool = False, epochs: int = 1, **settings: Any) -> TrainOutcome:
    outcome = detr_ft.train(
        model=start, data=SPEC, output_dir=folder, resume=resume, num_train_epochs=epochs, logging_steps=1,
        per_device_train_batch_size=4, **settings,
    )  # fmt: skip
    assert isinstance(outcome, TrainOutcome)
    return outcome


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    return train(tiny_checkpoint, tmp_path_factory.mktemp("damaged") / "run").folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def damages(content: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "garbage": bytes(range(256)) * 4,
        "cut": content[: len(content) // 2],
        "zeros": bytes(len(content)),
        "a list": b"[]",
        "numbers": b"[1, 2]",
        "an object": b"{}",
        "null": b"null",
        "text": b'"text"',
        "deep": b"[" * 50_000,
        "other values": b'{"data": 1, "model": [], "train": null, "map": "x", "id2label": 3, "model_type": [], "size": "x"}',
        "NaN": b'{"map": NaN, "model_type": "detr", "images": 1e999, "id2label": null}',
        "lists of lists": b"[[[]], [null], {}, 3]",
    }


# The verbs that read a file. Their results with intact files have tests of their own.
VERBS: dict[str, Callable[[Path, Path], object]] = {
    "evaluate": lambda start, run: detr_ft.evaluate(run),
    "compare": lambda start, run: detr_ft.compare([run, run]),
    "card": lambda start, run: model_card(run, "owner/name"),
    "push": lambda start, run: detr_ft.push(run, "owner/name", dry_run=True),
    "detect": lambda start, run: Detector.load(run),
    "resume": lambda start, run: train(start, run, resume=True),
}
READERS = {
    "config.json": ("card", "push", "detect"),
    "preprocessor_config.json": ("detect",),
    "model.safetensors": ("detect",),
    "recipe.yaml": ("evaluate", "compare", "card", "push"),
    "held-out.json": ("evaluate", "compare"),
    "predictions.json": ("compare",),
    "metrics.json": ("card", "resume"),
    "export.json": ("card",),
}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_by_every_verb_that_reads_it(tiny_checkpoint: Path, run: Path, name: str) -> None:
    file, faults = run / name, []
    content = file.read_bytes() if file.is_file() else b'{"latency": {}}'
    for damage, damaged in damages(content).items():
        for verb in READERS[name]:
            file.write_bytes(damaged)
            try:
                VERBS[verb](tiny_checkpoint, run)
            except InputError as error:
                if name not in str(error):
                    faults.append(f"{verb}, {damage}: {error}")
            except Exception as error:  # noqa: BLE001 - any other exception would be a traceback
                faults.append(f"{verb}, {damage}: {error!r:.200}")
    assert not faults, "\n".join(faults)


def reseal(folder: Path) -> None:
    """Record the digests of files that were changed, as if they had been written like that."""
    names = sorted({path.name for path in folder.iterdir()} - {"complete.json"})
    (folder / "complete.json").write_text(json.dumps({name: digest_of(folder / name) for name in names}))


def test_damaged_checkpoints_are_listed_with_a_way_out(tiny_checkpoint: Path, run: Path) -> None:
    (newest,) = (run / "checkpoints").glob("step-*")
    earlier = Path(shutil.copytree(newest, newest.with_name("step-1")))
    (newest / "training.pt").write_bytes(b"")
    (earlier / "complete.json").unlink()
    (run / "metrics.json").unlink()
    with pytest.raises(InputError) as caught:
        train(tiny_checkpoint, run, resume=True)
    assert caught.value.problems[:2] == [
        f"{newest}: training.pt changed after it was written", f"{earlier}: complete.json is missing"
    ]  # fmt: skip
    last = caught.value.problems[2]
    assert "Restore one from a backup" in last
    assert f"remove {run}, or choose another folder (train.output_dir={run}-2)" in last
    assert "--resume" not in last
    with pytest.raises(InputError, match="not empty"):
        train(tiny_checkpoint, run)
    assert train(tiny_checkpoint, run.with_name("run-2"), resume=True).metrics.map is not None


@pytest.mark.parametrize(
    "state",
    [{"facts": None}, {"facts": [1]}, {"progress": None}, {"progress": {"step": "x"}}, {"progress": {}}],
    ids=str,
)
def test_the_state_of_another_release_is_named(tiny_checkpoint: Path, run: Path, state: dict[str, Any]) -> None:
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    file = checkpoint / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | state))
    reseal(checkpoint)
    with pytest.raises(InputError, match=rf"{checkpoint}/state\.json: (facts|progress)"):
        train(tiny_checkpoint, run, resume=True, epochs=2)


def test_facts_of_another_kind_are_changes(tiny_checkpoint: Path, run: Path) -> None:
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    state = json.loads((checkpoint / "state.json").read_text())
    state["facts"] = {"recipe": [], "classes": {"use": []}, "data": 3, "versions": "x"}
    (checkpoint / "state.json").write_text(json.dumps(state))
    reseal(checkpoint)
    with pytest.raises(InputError, match=rf"since {checkpoint} was written: (.|\n)*--force"):
        train(tiny_checkpoint, run, resume=True, epochs=2)


def test_a_run_whose_files_cannot_be_parsed_is_resumed_or_refused(tiny_checkpoint: Path, run: Path) -> None:
    """A resumed run writes recipe, held-out images, results and model again."""
    for name in ("recipe.yaml", "held-out.json", "predictions.json", "report.html", "model.safetensors", "config.json"):
        (run / name).write_bytes(b"\xff[")
    assert train(tiny_checkpoint, run, resume=True, epochs=2).metrics.map is not None
    assert detr_ft.evaluate(run).metrics.map is not None
