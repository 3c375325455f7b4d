"""The scripts of the benchmarks import the package, and write tables."""

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
    is_library = name in ("clocks", "tables", "training_loops")
    assert is_library or callable(module.main)
    page = (SCRIPTS / "README.md").read_text()
    assert is_library or f"{name}.py" in page or name == "criterion_speed"  # which `make bench` calls


def test_a_table_is_written_as_markdown_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = importlib.import_module("tables").Tables(tmp_path / "written.json")
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
    output = json.loads((tmp_path / "written.json").read_text())
    assert output["machine"] == machine
    assert "torch" in machine
    assert output["tables"] == [
        {"columns": ["case", "ms", "times"], "rows": [["one", 12.345, None]]},
        {"columns": ["other"], "rows": [["two"]]},
    ]
    assert output["notes"] == ["words"]


def test_an_unwritable_file_is_reported_before_the_measurement(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        importlib.import_module("tables").Tables(tmp_path / "nowhere/written.json")
