"""The record of the code of this user's runs."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detr_ft.recipe import trust
from detr_ft.recipe.trust import code_of, record_run, unknown_code

DESCRIPTION: dict[str, Any] = {"losses": [{"use": "mine.py:Mine"}, {"use": "GIoULoss"}, {"use": "pack.terms:Other"}]}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The record of a user without runs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/detr-ft/runs.jsonl"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe's folder with a file, and a package on the path whose import fails the test."""
    folder = tmp_path / "work"
    (folder / "pack").mkdir(parents=True)
    for name in ("mine.py", "pack/__init__.py", "pack/terms.py"):
        (folder / name).write_text(f"raise AssertionError({name!r})")
    monkeypatch.syspath_prepend(folder)
    return folder


def test_code_of_a_run_is_known_in_that_run_alone(record: Path, folder: Path) -> None:
    code = code_of(DESCRIPTION, folder)
    assert sorted(Path(name).name for name in code) == ["__init__.py", "mine.py", "terms.py"]
    assert unknown_code(folder / "run", DESCRIPTION, folder) == list(code)
    record_run(folder / "run", code)
    assert unknown_code(folder / "run", DESCRIPTION, folder) == []
    assert unknown_code(folder / "run/failures/process-1/step-3", DESCRIPTION, folder) == []
    assert unknown_code(folder / "other", DESCRIPTION, folder) == list(code)
    assert unknown_code(folder / "running", {"use": "GIoULoss"}, folder) == []
    more = [DESCRIPTION, {"use": "__main__:Mine"}, {"use": "json:Mine"}]
    assert unknown_code(folder / "run", more, folder) == [json.__file__, "__main__"]


@pytest.mark.parametrize("name", ["mine.py", "pack/__init__.py", "pack/terms.py"])
def test_a_changed_file_is_unknown(record: Path, folder: Path, name: str) -> None:
    record_run(folder / "run", code_of(DESCRIPTION, folder))
    (folder / name).write_text("import os")
    assert unknown_code(folder / "run", DESCRIPTION, folder) == [str(folder / name)]


def test_a_link_to_other_code_is_unknown(record: Path, folder: Path) -> None:
    record_run(folder / "run", code_of(DESCRIPTION, folder))
    (folder / "mine.py").rename(folder / "other.py")
    (folder / "mine.py").symlink_to("other.py")
    assert unknown_code(folder / "run", DESCRIPTION, folder) == [str(folder / "other.py")]


@pytest.mark.parametrize("name", ["", ".x", "a..b", "a\0b", "../evil", "sys", "x" * 5000, "\udc80"])
def test_names_without_a_source_file_are_unknown(record: Path, folder: Path, name: str) -> None:
    assert unknown_code(folder / "run", {"use": f"{name}:Mine"}, folder) == [name]
    assert unknown_code(folder / "run", {"use": f"{name}.py:Mine"}, folder) == []  # no such file: nothing to run


def test_runs_without_code_are_not_recorded(record: Path, folder: Path) -> None:
    record_run(folder / "run", {})
    assert not record.exists()


@pytest.mark.parametrize(
    "content", [b"\xff\n", b"{\n", b"[]\n", b'{"run": "/"}\n', b'{"run": "/", "code": {"a": 1}}\n']
)
def test_a_damaged_record_knows_nothing_and_is_replaced(
    record: Path, folder: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    code = code_of(DESCRIPTION, folder)
    record_run(folder / "run", code)
    record.write_bytes(record.read_bytes() + content)
    assert unknown_code(folder / "run", DESCRIPTION, folder) == list(code)
    assert f"{record} is damaged" in caplog.text
    record_run(folder / "again", code)
    caplog.clear()
    assert unknown_code(folder / "again", DESCRIPTION, folder) == []
    assert not caplog.text


def test_a_record_that_cannot_be_written_is_logged_once(
    record: Path, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.parents[1].write_text("a file in place of the folder")
    with caplog.at_level(logging.INFO):
        record_run(folder / "run", code_of(DESCRIPTION, folder))
    assert len(caplog.records) == 1
    assert "--trust-code" in caplog.text
    assert len(unknown_code(folder / "run", DESCRIPTION, folder)) == 3
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home folder")))
    monkeypatch.setattr(sys, "platform", "linux")
    caplog.clear()
    record_run(folder / "run", code_of(DESCRIPTION, folder))
    assert "no home folder" in caplog.text


def test_the_record_stays_small(record: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_MAX_RECORD_BYTES", 2000)
    code = code_of(DESCRIPTION, folder)
    for number in range(20):
        record_run(folder / f"run-{number}", code)
        record_run(folder / f"run-{number}", code)  # once more changes nothing
    assert 0 < record.stat().st_size <= 2000
    assert len(set(record.read_bytes().splitlines())) == len(record.read_bytes().splitlines())
    assert unknown_code(folder / "run-19", DESCRIPTION, folder) == []
    assert unknown_code(folder / "run-0", DESCRIPTION, folder) == list(code)
    assert [file.name for file in record.parent.iterdir()] == [record.name]


def test_processes_record_at_the_same_time(record: Path) -> None:
    program = "import sys; from pathlib import Path; from detr_ft.recipe.trust import record_run\n"
    program += "for n in range(40): record_run(Path(sys.argv[1]) / str(n), {'file.py': 'digest' * 50})"
    processes = [subprocess.Popen([sys.executable, "-c", program, f"/run/{name}"]) for name in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    entries = [json.loads(line) for line in record.read_bytes().splitlines()]
    assert len({entry["run"] for entry in entries}) == 120


@pytest.mark.parametrize(
    ("platform", "variables", "place"),
    [
        ("linux", {}, "/home/me/.local/state"),
        ("linux", {"XDG_STATE_HOME": "relative"}, "/home/me/.local/state"),
        ("darwin", {}, "/home/me/Library/Application Support"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local"),
        ("win32", {}, "/home/me/AppData/Local"),
        ("linux", {"XDG_STATE_HOME": "/state"}, "/state"),
    ],
)
def test_the_record_is_in_the_state_folder(
    platform: str, variables: dict[str, str], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert trust._record() == Path(place) / "detr-ft/runs.jsonl"


def test_the_tests_do_not_write_to_the_home_folder() -> None:
    assert not trust._record().is_relative_to(Path.home())
    assert "detr-ft-state-" in os.environ["XDG_STATE_HOME"]
