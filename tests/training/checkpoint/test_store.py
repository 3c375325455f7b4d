from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from detr_ft.errors import InputError
from detr_ft.training.checkpoint.store import Checkpoints


def test_the_newest_checkpoints_stay_and_are_complete(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", limit=2)
    assert checkpoints.newest() is None
    for step in (2, 9, 10):
        checkpoints.save(step, {"a.bin": bytes([step]), "b.json": b"{}"})
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.name, (newest / "a.bin").read_bytes()) == ("step-10", b"\x0a")
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-10", "step-9"]


@pytest.mark.parametrize(
    "damage", ["truncated", "altered", "missing", "no marker", "empty marker", "marker of another kind"]
)
def test_a_damaged_checkpoint_is_logged_and_skipped(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, limit=3)
    good, bad = (checkpoints.save(step, {"a.bin": b"weights"}) for step in (1, 2))
    match damage:
        case "truncated":
            (bad / "a.bin").write_bytes(b"weig")
        case "altered":
            (bad / "a.bin").write_bytes(b"Weights")
        case "missing":
            (bad / "a.bin").unlink()
        case "no marker":
            (bad / "complete.json").unlink()
        case "empty marker":
            (bad / "complete.json").write_text("")
        case _:
            (bad / "complete.json").write_text("[]")
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest() == good
    assert f"{bad} is damaged" in caplog.text


def test_a_step_is_saved_again_after_resuming_from_an_earlier_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, limit=2)
    checkpoints.save(4, {"a.bin": b"old"})
    folder = checkpoints.save(4, {"a.bin": b"new"})
    assert (folder / "a.bin").read_bytes() == b"new"
    assert checkpoints.newest() == folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_costs_no_checkpoint(small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk / "checkpoints", limit=1)
    first = checkpoints.save(1, {"a.bin": bytes(400_000)})
    filler = small_disk / "filler"
    filler.write_bytes(bytes(400_000))
    with pytest.raises(
        InputError, match=r"step-2: the checkpoint can't be written: No space left.*--resume from step-1"
    ):
        checkpoints.save(2, {"a.bin": bytes(400_000)})
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-1"]
    assert checkpoints.newest() == first
    filler.unlink()
    assert checkpoints.save(2, {"a.bin": bytes(400_000)}) == checkpoints.newest()


def test_the_limit_does_not_count_later_damaged_checkpoints(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, limit=1)
    checkpoints.save(5, _files(5))
    (tmp_path / "step-900").mkdir()
    (tmp_path / "step-700").symlink_to(tmp_path / "nowhere")
    checkpoints.save(6, _files(6))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-6", "step-700", "step-900"]
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.name == "step-6"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # a child that only writes files may fork
def test_sixty_kills_inside_saving_leave_the_newest_complete_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, limit=2)
    checkpoints.save(0, _files(0))
    incomplete = last = 0
    for kill in range(1, 61):
        child = os.fork()
        if child == 0:
            _kill_self_at(kill)
            for step in range(last + 1, last + 100):
                checkpoints.save(step, _files(step))
            os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        incomplete += bool(list(tmp_path.glob(".partial-*")))
        newest = checkpoints.newest()
        assert newest is not None
        last = max(last, int(newest.name.removeprefix("step-")))
        assert newest.name == f"step-{last}"
        contents = {path.name: path.read_bytes() for path in newest.iterdir() if path.name != "complete.json"}
        assert contents == _files(last)
        checkpoints.remove_partial()
        assert not list(tmp_path.glob(".partial-*"))
    assert incomplete >= 25  # the other kills hit the removal of older checkpoints
    assert last >= 25  # and later ones come after complete saves


def _kill_self_at(number: int) -> None:
    """Kill this process before its `number`-th operation on files: open, flush, rename, make, remove."""
    operations = itertools.count(1)
    flush = os.fsync

    def count(event: str, arguments: object = None) -> None:
        if (
            event in {"open", "os.fsync", "os.rename", "os.mkdir", "os.rmdir", "os.remove"}
            and next(operations) == number
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    def counted_flush(file: int) -> None:
        count("os.fsync")
        flush(file)

    sys.addaudithook(count)
    os.fsync = counted_flush


def _files(step: int) -> dict[str, bytes]:
    return {name: bytes([step % 256]) * 200_000 for name in ("model.safetensors", "optimizer.pt", "state.json")}
