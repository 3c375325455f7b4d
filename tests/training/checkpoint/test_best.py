"""The model of the best evaluation: saved as a whole, and checked before a run is resumed."""

from __future__ import annotations

import json
import logging
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.small_run import make_trainer, stop_after, unprepared_trainer, with_maps
from transformers import DetrForObjectDetection

from detr_ft.errors import InputError, Interrupted
from detr_ft.training.trainer import DetrTrainer
from detr_ft.utils.complete_folder import digest_of, fault_of

SETTINGS: dict[str, Any] = {"num_train_epochs": 3, "early_stopping_patience": 2, "logging_steps": 1}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A run of 9 steps that was interrupted at step 8; its best evaluation was at step 3."""
    folder = tmp_path_factory.mktemp("best") / "run"
    trainer = make_trainer(tiny_checkpoint, folder, **SETTINGS)
    with_maps(trainer, [0.3, 0.2])
    stop_after(trainer, 8)
    with pytest.raises(Interrupted):
        trainer.train()
    return folder


@pytest.fixture
def run(interrupted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


def resumed(start: Path, run: Path, **settings: Any) -> DetrTrainer:
    return unprepared_trainer(start, run, checkpoint=run / "checkpoints/step-8", **(SETTINGS | settings))


def finish(trainer: DetrTrainer) -> Any:
    trainer.setup()
    with_maps(trainer, [0.1, 0.3])
    return trainer.train()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (lambda best: flip(best / "model.safetensors"), "model.safetensors changed"),
    "a cut file": (lambda best: (best / "model.safetensors").write_bytes(b"cut"), "model.safetensors changed"),
    "another config": (lambda best: (best / "config.json").write_text("{}"), "config.json changed"),
    "no weights": (lambda best: (best / "model.safetensors").unlink(), "model.safetensors is missing"),
    "no digests": (lambda best: (best / "complete.json").unlink(), "complete.json is missing"),
    "damaged digests": (lambda best: (best / "complete.json").write_text("[]"), "complete.json or a file in it"),
    "no folder": (shutil.rmtree, "is missing, and the best evaluation was at step 3"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_best_model_is_reported_before_the_run_continues(
    tiny_checkpoint: Path, run: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage_folder, words = DAMAGES[damage]
    damage_folder(run / "checkpoints/best")
    log = (run / "log.jsonl").read_bytes()
    with pytest.raises(InputError, match=rf"checkpoints/best: .*{words}.*load_best_model_at_end=false"):
        resumed(tiny_checkpoint, run, load_best_model_at_end=True).setup()
    assert (run / "log.jsonl").read_bytes() == log
    with caplog.at_level(logging.WARNING):
        resumed(tiny_checkpoint, run).setup()
    assert words in caplog.text


def test_the_best_model_is_restored_by_a_resumed_run(tiny_checkpoint: Path, run: Path) -> None:
    best = load_file(run / "checkpoints/best/model.safetensors")
    assert json.loads((run / "checkpoints/best/state.json").read_text()) == {"step": 3}
    assert finish(resumed(tiny_checkpoint, run, load_best_model_at_end=True)).metrics["map"] == 0.3
    final = load_file(run / "model.safetensors")
    assert all(torch.equal(final[name], value) for name, value in best.items())


def test_by_another_metric_another_model_would_be_the_best(tiny_checkpoint: Path, run: Path) -> None:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for row in rows:
        row.update({"map_75": row["step"] / 10} if "map" in row else {})
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"load_best_model_at_end": True, "metric_for_best_model": "map_75"}
    with pytest.raises(InputError, match="has the model of step 3, and the best evaluation was at step 6"):
        resumed(tiny_checkpoint, run, **settings).setup()


def test_a_best_model_of_an_earlier_version_has_no_digests(tiny_checkpoint: Path, run: Path) -> None:
    best = run / "checkpoints/best"
    for name in ("complete.json", "state.json"):
        (best / name).unlink()
    trainer = resumed(tiny_checkpoint, run, load_best_model_at_end=True)
    assert finish(trainer).metrics["map"] == 0.3
    (best / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"best: has no model\.safetensors"):
        resumed(tiny_checkpoint, run, load_best_model_at_end=True).setup()


def test_a_best_model_that_is_damaged_later_is_reported_at_the_end(tiny_checkpoint: Path, run: Path) -> None:
    trainer = resumed(tiny_checkpoint, run, load_best_model_at_end=True)
    trainer.setup()
    flip(run / "checkpoints/best/model.safetensors")
    with_maps(trainer, [0.1, 0.3])
    with pytest.raises(InputError, match=r"best: model\.safetensors changed.*load_best_model_at_end=false"):
        trainer.train()
    assert not (run / "model.safetensors").exists()
    (newest,) = {path for path in (run / "checkpoints").glob("step-*") if path.name == "step-9"}
    again = make_trainer(tiny_checkpoint, run, checkpoint=newest, **SETTINGS)
    with_maps(again, [0.1])
    again.train()
    assert (run / "model.safetensors").is_file()


def test_a_best_model_of_steps_that_are_repeated_is_no_fault_until_the_end(tiny_checkpoint: Path, run: Path) -> None:
    best = run / "checkpoints/best"
    (best / "state.json").write_text('{"step": 9}')
    names = {path.name for path in best.iterdir()} - {"complete.json"}
    (best / "complete.json").write_text(json.dumps({name: digest_of(best / name) for name in names}))
    trainer = resumed(tiny_checkpoint, run, load_best_model_at_end=True)
    trainer.setup()
    with_maps(trainer, [0.1])  # and not the highest, as before the run was interrupted
    with pytest.raises(InputError, match="has the model of step 9, and the best evaluation was at step 3"):
        trainer.train()


def test_a_best_model_is_replaced_after_a_checkpoint_of_its_step(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", **SETTINGS, load_best_model_at_end=True)
    with_maps(trainer, [0.1, 0.2, 0.3])
    stop_after(trainer, 7)
    with pytest.raises(Interrupted):
        trainer.train()
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} == {"best", "step-6", "step-7"}


@pytest.mark.parametrize("is_restored", [True, False])
@pytest.mark.parametrize("epochs", [3, 4])
def test_a_run_whose_last_evaluation_was_the_best_is_resumed(
    tiny_checkpoint: Path, tmp_path: Path, is_restored: bool, epochs: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its newest checkpoint is from before that evaluation, which the resumed run repeats."""
    run, settings = tmp_path / "run", SETTINGS | {"load_best_model_at_end": is_restored}
    trainer = make_trainer(tiny_checkpoint, run, **settings)
    with_maps(trainer, [0.1, 0.2, 0.3])
    train_until_saved(trainer)
    assert json.loads((run / "checkpoints/best/state.json").read_text()) == {"step": 9}
    with caplog.at_level(logging.WARNING):
        again = make_trainer(
            tiny_checkpoint, run, checkpoint=run / "checkpoints/step-9", **settings | {"num_train_epochs": epochs}
        )
    assert "checkpoints/best" not in caplog.text
    with_maps(again, [0.3, 0.1, 0.3])
    assert again.train().metrics["map"] == (0.3 if is_restored or epochs == 3 else 0.1)


@pytest.mark.parametrize("folder", ["checkpoints/best", "raw"])
def test_a_model_that_is_replaced_is_the_old_or_the_new_one_as_a_whole(
    tiny_checkpoint: Path, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", ema_decay=0.9)
    target = tmp_path / "run" / folder
    trainer._save_folder(folder)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    assert fault_of(target) is None
    with torch.no_grad():
        trainer.model.model.query_position_embeddings.weight.add_(1)
    rename = Path.rename
    for killed_at in ("config.json", f".partial-{target.name}"):
        with monkeypatch.context() as patch:
            kill_at(patch, killed_at, trainer)
            with pytest.raises(KeyboardInterrupt):
                trainer._save_folder(folder)
        assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert Path.rename is rename
    trainer._save_folder(folder)
    assert (target / "model.safetensors").read_bytes() != before["model.safetensors"]
    assert DetrForObjectDetection.from_pretrained(target).num_parameters() > 0
    assert not list(target.parent.glob(".*"))


def kill_at(patch: pytest.MonkeyPatch, name: str, trainer: DetrTrainer) -> None:
    """Interrupt the next save after its first file, or before the rename of a folder."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if name == "config.json":
        patch.setattr(trainer.processor, "save_pretrained", interrupt, raising=False)
        return
    rename = Path.rename

    def renamed(path: Path, target: Path) -> Path:
        return interrupt() if path.name == name else rename(path, target)  # type: ignore[return-value, func-returns-value]

    patch.setattr(Path, "rename", renamed)


def train_until_saved(trainer: DetrTrainer) -> None:
    """Train, and end as if killed before the model is saved."""
    trainer.save = lambda: 1 // 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        trainer.train()


def test_a_signal_while_the_last_model_is_saved_ends_the_run(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=1)
    save = trainer.save

    def interrupted() -> None:
        trainer.stop_requests.signals.received = signal.SIGTERM
        save()

    trainer.save = interrupted  # type: ignore[method-assign]
    with pytest.raises(Interrupted) as caught:
        trainer.train()
    assert caught.value.signal == signal.SIGTERM


def test_a_run_that_was_stopped_early_ends_the_same_after_it_was_killed_at_its_end(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = {"num_train_epochs": 9, "early_stopping_patience": 1, "save_steps": 2}
    logs = []
    for killed in (False, True):
        run = tmp_path / f"run-{killed}"
        trainer = make_trainer(tiny_checkpoint, run, **settings)
        with_maps(trainer, [0.3, 0.2, 0.1, 0.05])
        if killed:
            train_until_saved(trainer)
            trainer = make_trainer(tiny_checkpoint, run, checkpoint=run / "checkpoints/step-6", **settings)
            with_maps(trainer, [0.2])
        trainer.train()
        assert trainer.progress.step == 6
        logs.append([(row["step"], row.get("map"), row.get("loss")) for row in trainer.monitor.log.read()])
    assert logs[0] == logs[1]


def test_a_run_that_its_time_limit_stopped_takes_no_step_after_it_was_killed_at_its_end(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = {"num_train_epochs": 500, "max_minutes": 100.0}
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", **settings)
    clock, shown = trainer.stop_requests.clock, trainer.display.step

    def step(number: int, row: dict[str, Any] | None) -> None:
        shown(number, row)
        clock.start(1000.0 * number)
        if number == 4:
            clock.record_evaluation(1900.0)  # of the evaluation after step 3: there is no time for a sixth step
            trainer.progress.evaluation_seconds = 1900.0

    trainer.display.step = step  # type: ignore[method-assign]
    train_until_saved(trainer)
    stopped_at = trainer.progress.step
    again = make_trainer(
        tiny_checkpoint, tmp_path / "run", checkpoint=tmp_path / f"run/checkpoints/step-{stopped_at}", **settings
    )
    again.train()
    assert again.progress.step == stopped_at == 5
