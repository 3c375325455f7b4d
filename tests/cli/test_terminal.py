"""Text on the terminal, and the exit status of each exception of a verb."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from detr_ft.cli import console
from detr_ft.cli.app import app
from detr_ft.errors import InputError
from detr_ft.evaluation.metrics import MAIN_METRICS
from detr_ft.training.monitor.display import LiveDisplay
from detr_ft.utils.progress import shown_on, status

ESCAPES = "\x1b[2J\x1b]8;;http://x\x07\x08\r\x9b31m\u202e\u2066\ud800"
SHOWN = r"\x1b[2J\x1b]8;;http://x\x07\x08\x0d\u009b31m\u202e\u2066\ud800"


class OwnError(BaseException):
    """No `Exception`, as a user may define one."""


def status_of(verb: Callable[[], object]) -> int:
    with pytest.raises(SystemExit) as caught:
        console.exit_with_status(verb)()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def raising(error: BaseException) -> Callable[[], None]:
    def verb() -> None:
        raise error

    return verb


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Console:
    """A recording console in place of those on stderr."""
    recorder = Console(record=True, width=100_000, force_terminal=True, stderr=True)
    monkeypatch.setattr(console, "console", recorder)
    monkeypatch.setattr(console, "_errors", recorder)
    return recorder


@pytest.mark.parametrize(
    "error", [SystemExit(0), SystemExit(), SystemExit("text"), KeyboardInterrupt(), GeneratorExit(), OwnError("mine")]
)
def test_exceptions_that_end_a_process_are_failures_with_a_line(error: BaseException, terminal: Console) -> None:
    assert status_of(raising(error)) == console.FAILURE
    text = terminal.export_text()
    assert f"failed: {type(error).__name__}: " in text
    assert "(test_terminal.py, line " in text


def test_ctrl_c_and_the_status_of_a_verb_stay() -> None:
    def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass

    assert status_of(interrupted) == console.INTERRUPTED
    assert status_of(raising(console.CommandExit(7))) == 7


def test_a_file_of_a_recipe_that_exits_with_status_0_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")
    Path("term.py").write_text("import sys\n\nsys.exit(0)\n")
    Path("recipe.yaml").write_text(
        'model: {checkpoint: embedded:small}\ndata: {source: "generated:shapes"}\ntrain: {output_dir: run}\n'
        'criterion: {matcher: {use: HungarianMatcher}, losses: [{use: "term.py:Term"}]}\n'
    )
    done = CliRunner().invoke(app, ["train", "recipe.yaml"])
    assert done.exit_code == 2
    assert "recipe.yaml:4: criterion.losses.0.use: term.py: SystemExit: 0 (term.py, line 3)" in done.stderr


def test_no_control_character_reaches_the_terminal(terminal: Console, capsys: pytest.CaptureFixture[str]) -> None:
    console.set_up_logging()
    console.print_message(ESCAPES)
    console.warn(ESCAPES)
    logging.getLogger("detr_ft.test").warning("%s", ESCAPES)
    assert status_of(raising(InputError([f"{ESCAPES}: no"]))) == console.INVALID_INPUT
    with shown_on(terminal), status(f"[bold]{ESCAPES}"):
        pass
    display = LiveDisplay(terminal)
    display.start(1, 0, None)
    display.evaluation({"epoch": 1, **dict.fromkeys(MAIN_METRICS, 0.5), "remarks": [ESCAPES]})
    display.stop()
    text = terminal.export_text()
    assert text.count(SHOWN) >= 5
    for character in "\x07\x08\x9b\u202e\u2066\ud800":
        assert character not in text
    assert "\x1b[2J" not in text
    console.print_result(ESCAPES)
    assert capsys.readouterr().out == f"{SHOWN}\n"


def test_text_with_markup_is_printed_as_it_is(terminal: Console) -> None:
    for text in ("[bold]x[/]", "a\\", "\x1b[bold]", "[/]", "\\[red]", ":cat:"):
        console.print_message(text)
        assert terminal.export_text() == f"{console.visible(text)}\n"


def test_many_and_long_problems_are_cut(terminal: Console) -> None:
    problems = ["x" * 100_000, *map(str, range(79_999))]
    assert status_of(raising(InputError(problems))) == console.INVALID_INPUT
    lines = terminal.export_text().splitlines()
    assert len(lines) == 101
    assert lines[-1] == "error: and 79,900 more"
    assert max(map(len, lines)) < 2200
    assert "characters left out" in lines[0]
