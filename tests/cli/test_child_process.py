"""A child process that ends early, crashes, blocks or floods its output has no result, and the reason is reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detr_ft.cli.app import app
from detr_ft.cli.child_process import ChildOutcome, run_child

CHILD = """\
import ctypes, os, signal, sys, threading, time
from detr_ft.cli.child_process import serve
def work(request):
{body}
serve(work)
"""
TERM = """\
import os, sys
from dataclasses import dataclass
from typing import ClassVar
from detr_ft.criterion import BoxL1Loss

@dataclass(frozen=True)
class Term:
    weight: float = 1.0
    name: ClassVar[str] = "loss_term"

    def __call__(self, predictions, targets, matches):
        print("computing")
        {body}
        return BoxL1Loss()(predictions, targets, matches)
"""
RECIPE = """\
model: {checkpoint: embedded:small}
data: {source: "generated:shapes"}
criterion: {matcher: {use: HungarianMatcher}, losses: [{use: CrossEntropyLoss}, {use: "term.py:Term"}]}
train: {output_dir: run}
"""


def child_of(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str, seconds: float | None = 20) -> ChildOutcome:
    (folder / "child.py").write_text(CHILD.format(body="\n".join(f"    {line}" for line in body.splitlines())))
    monkeypatch.syspath_prepend(folder)
    return run_child("child", [1, 2], seconds)


def test_the_result_is_that_of_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = child_of(tmp_path, monkeypatch, "print('out'); print('err', file=sys.stderr)\nreturn {'sum': sum(request)}")
    assert (done.result, done.timed_out) == ({"sum": 3}, False)
    assert sorted(done.output.split()) == ["err", "out"]


def test_threads_and_exit_handlers_do_not_delay_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "import atexit\natexit.register(time.sleep, 600)\nthreading.Thread(target=time.sleep, args=[600]).start()\nreturn 1"
    assert child_of(tmp_path, monkeypatch, body).result == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os._exit(0)", "ended with status 0 before it was complete"),
        ("sys.exit(0)", "ended with status 0 before it was complete"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("ctypes.string_at(0)", "was ended by SIGSEGV, at child.py, line 4, in work"),
        ("raise ValueError('mine')", "ended with status 1 before it was complete"),
        ("return object()", "ended with status 1 before it was complete"),
    ],
)
def test_a_child_without_a_complete_result_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    done = child_of(tmp_path, monkeypatch, body)
    assert done.result is None
    assert not done.timed_out
    assert words in done.failure


def test_an_endless_loop_is_ended_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for body in ("while True: pass", "time.sleep(600)", "signal.sigwait([signal.SIGUSR1])"):
        done = child_of(tmp_path, monkeypatch, body, seconds=0.5)
        assert done.result is None
        assert done.timed_out
        assert done.failure == "did not end within 0.5 seconds, at child.py, line 4, in work"


def test_a_flood_of_output_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "for number in range(100_000):\n    print('x' * 500)\nprint('last')\nreturn 1"
    done = child_of(tmp_path, monkeypatch, body)
    assert done.result == 1
    assert len(done.output) < 5000
    assert done.output.startswith("[50,0")
    assert done.output.endswith("\nlast")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_a_term_that_ends_the_process_fails_its_check(recipe: Path) -> None:
    Path("term.py").write_text(TERM.format(body="os._exit(0)"))
    done = CliRunner().invoke(app, ["check", "recipe.yaml"])
    assert done.exit_code == 2
    assert "recipe.yaml: its check ended with status 0 before it was complete. It runs term.py." in done.stderr


@pytest.mark.slow
def test_ctrl_c_ends_the_check_of_an_endless_term(recipe: Path) -> None:
    Path("term.py").write_text(TERM.format(body="open(str(os.getpid()), 'w').close()\n        while True: pass"))
    command = [sys.executable, "-m", "detr_ft", "check", "recipe.yaml"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (started := [int(file.name) for file in Path().iterdir() if file.name.isdecimal()]):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in stderr
    for child in started:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


@pytest.mark.slow
def test_the_check_of_an_endless_term_ends_at_its_limit(recipe: Path) -> None:
    Path("term.py").write_text(TERM.format(body="while True: pass"))
    done = CliRunner().invoke(app, ["check", "recipe.yaml", "--time-limit", "5"])
    assert done.exit_code == 2
    assert "its check did not end within 5 seconds, at term.py, line 13, in __call__." in done.stderr
    assert "--time-limit" in done.stderr


@pytest.mark.slow
def test_a_segmentation_fault_is_reported_with_its_line(recipe: Path) -> None:
    Path("term.py").write_text(TERM.format(body="import ctypes; ctypes.string_at(0)"))
    done = CliRunner().invoke(app, ["check", "recipe.yaml"])
    assert done.exit_code == 2
    assert "its check was ended by SIGSEGV, at term.py, line 13, in __call__." in done.stderr


@pytest.mark.slow
def test_a_probe_that_ends_the_process_is_no_success(recipe: Path) -> None:
    """The term ends the process only for the queries of the model, which the check does not have."""
    Path("term.py").write_text(TERM.format(body="predictions.num_queries not in (7, 100) and os._exit(0)"))
    done = CliRunner().invoke(app, ["check", "recipe.yaml", "--probe"])
    assert done.exit_code == 2
    assert "recipe.yaml: its probe ended with status 0 before it was complete" in done.stderr


def test_the_request_reaches_the_child_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = ["\udcff", "a=\x1b", "ü"]
    (tmp_path / "echo.py").write_text(
        "from detr_ft.cli.child_process import serve\nserve(lambda request: [request, __import__('sys').path])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    echoed, path = run_child("echo", odd).result
    assert echoed == odd
    own = list(dict.fromkeys(entry or os.getcwd() for entry in sys.path))
    assert list(dict.fromkeys(path))[: len(own)] == own
    assert json.dumps(echoed) == json.dumps(odd)
