"""The scripts of the benchmarks: that they fit the package, and what they write."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "benchmarks"


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.mark.filterwarnings("ignore")  # a script silences its libraries as it likes
@pytest.mark.parametrize("name", sorted(script.stem for script in SCRIPTS.glob("*.py")))
def test_a_script_finds_what_it_imports(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    is_library = name in ("clocks", "telling", "step_ways")
    assert is_library or callable(module.main)
    page = (SCRIPTS / "README.md").read_text()
    assert is_library or f"{name}.py" in page or name == "criterion_speed"  # which `make bench` calls


def test_a_table_is_told_in_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = importlib.import_module("telling").Tables(tmp_path / "told.json")
    tables.begin({"case": "", "ms": ".1f", "times": ".2f"})
    tables.row("one", 12.345, None)
    tables.begin({"other": ""})
    tables.row("two")
    tables.note("words")
    printed = capsys.readouterr().out
    machine = printed.splitlines()[0]
    assert (
        printed
        == f"{machine}\n\n| case | ms | times |\n|---|---|---|\n| one | 12.3 | – |\n\n| other |\n|---|\n| two |\n\nwords\n"
    )
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["machine"] == machine
    assert "torch" in machine
    assert told["tables"] == [
        {"columns": ["case", "ms", "times"], "rows": [["one", 12.345, None]]},
        {"columns": ["other"], "rows": [["two"]]},
    ]
    assert told["notes"] == ["words"]


def test_what_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        importlib.import_module("telling").Tables(tmp_path / "nowhere/told.json")
