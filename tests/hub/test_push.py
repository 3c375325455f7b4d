"""A push uploads an allow-list, privately, reports errors, and never prints the token."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hub.loopback import CUT
from typer.testing import CliRunner

from detr_ft.cli.app import app
from detr_ft.errors import InputError
from detr_ft.hub.card import write_card
from detr_ft.hub.push import push
from detr_ft.hub.upload_plan import plan

NAME = "me/bolts-and-nuts"
UPLOADED = {
    "README.md",
    "config.json",
    "examples/1-found.jpg",
    "examples/1.jpg",
    "metrics.json",
    "model.safetensors",
    "onnx/model.onnx",
    "preprocessor_config.json",
    "recipe.yaml",
    "report.html",
}
# huggingface_hub reads its settings when it is imported, so both ends of the round trip run in a process of their own.
PUSH = "import sys; from pathlib import Path; from detr_ft.hub.push import push; from detr_ft.hub.upload_plan import plan; print(push(plan(Path(sys.argv[1])), sys.argv[2]))"
IMPATIENT = "from detr_ft.utils import hub; hub._RETRY_WAITS_SECONDS = (0.0,); from detr_ft.cli import main; main()"
PULL = """
import sys
from huggingface_hub import snapshot_download
from transformers import DetrForObjectDetection
folder = snapshot_download(sys.argv[1])
model, info = DetrForObjectDetection.from_pretrained(folder, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"], info
print(folder, model.config.id2label[1])
"""


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}


def _python(code: str, arguments: list[str], home: Path) -> str:
    """The output of a Python that talks plain LFS to HF_ENDPOINT and has an empty cache."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=_environment(home), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_pushed_model_comes_back_and_loads(hub, run: Path, token: str, tmp_path: Path) -> None:
    assert _python(PUSH, [str(run), NAME], tmp_path / "home") == f"{hub.url}/{NAME}"
    assert hub.repositories[NAME].private
    assert set(hub.repositories[NAME].files) == UPLOADED
    assert not any(token.encode() in request.body for request in hub.requests)
    assert not any(token.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    folder, label = _python(PULL, [NAME], tmp_path / "other home").rsplit(" ", 1)
    assert label == "nut"
    assert (Path(folder) / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


PIN = """
import sys, time
time.sleep = lambda seconds: None  # the client waits longer and longer where the Hub fails
from detr_ft.models.load import commit_of, load_model
first = commit_of(sys.argv[1])
load_model(sys.argv[1], first)
print(first, commit_of(sys.argv[1], first), commit_of("embedded:small"), commit_of(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_branch_is_pinned_to_the_commit_that_it_is_now(hub, run: Path, tmp_path: Path) -> None:
    _python(PUSH, [str(run), NAME], tmp_path / "home")
    first = hub.repositories[NAME].head
    assert _python(PIN, [NAME, str(run)], tmp_path / "other home") == f"{first} {first} None None"
    (run / "metrics.json").write_text('{"map": 0.9}')
    _python(PUSH, [str(run), NAME], tmp_path / "home")
    second = hub.repositories[NAME].head
    assert second != first
    assert _python(PIN, [NAME, str(run)], tmp_path / "other home").startswith(second)
    hub.fail("HEAD", "/resolve/", 503)
    hub.fail("GET", "/resolve/", 503)
    assert _python(PIN, [NAME, str(run)], tmp_path / "other home").startswith(
        second
    )  # out of reach: what is in the cache


def test_the_plan_is_what_is_uploaded_and_leaves_links_out(run: Path) -> None:
    (run / "model-00001-of-00002.safetensors").write_bytes(b"shard")
    (run / "report.html").unlink()
    (run / "report.html").symlink_to(run / "id_rsa")
    (run / "onnx").rename(run / "elsewhere")
    (run / "onnx").symlink_to(run / "elsewhere")
    names = [file.relative_to(run).as_posix() for file in plan(run).files]
    assert names == sorted(names)
    assert set(names) == UPLOADED - {"README.md", "report.html", "onnx/model.onnx"} | {
        "model-00001-of-00002.safetensors"
    }


def test_a_card_is_not_written_through_a_link(run: Path) -> None:
    (run / "README.md").symlink_to(run / "id_rsa")
    with pytest.raises(InputError, match="is a link"):
        write_card(run, NAME)
    assert (run / "id_rsa").read_text() == "planted"


def test_the_users_own_card_is_not_overwritten(hub, run: Path) -> None:
    (run / "README.md").write_text("---\nlicense: mit\n---\nMine.")
    _push_small(run)
    assert hub.repositories[NAME].files["README.md"].endswith(b"Mine.")


def _push_small(run: Path, private: bool = True) -> str:
    """Push without LFS transfers, which need a process of its own."""
    for file in ("model.safetensors", "onnx/model.onnx", "examples/1.jpg", "examples/1-found.jpg"):
        (run / file).write_bytes(b"")
    return push(plan(run), NAME, private)


@pytest.mark.parametrize("private", [True, False])
def test_private_by_default(hub, run: Path, private: bool) -> None:
    _push_small(run, private)
    assert hub.repositories[NAME].private is private


def test_a_private_push_never_goes_to_a_public_repository(hub, run: Path) -> None:
    _push_small(run, private=False)
    before = dict(hub.repositories[NAME].files)
    (run / "metrics.json").write_text('{"map": 0.9}')
    with pytest.raises(InputError, match="public"):
        _push_small(run)
    assert hub.repositories[NAME].files == before


@pytest.mark.parametrize("place", ["recipe.yaml", "report.html", "README.md"])
def test_a_token_in_a_file_stops_the_push(hub, run: Path, token: str, place: str) -> None:
    (run / place).write_text(f"note: {token}")
    with pytest.raises(InputError, match=place) as caught:
        _push_small(run)
    assert token not in str(caught.value)
    assert not hub.requests


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "repos/create", 401, "doesn't accept the token"),
        ("POST", "repos/create", 403, "may not write"),
        ("POST", "/commit/", 409, "being changed"),
        ("POST", "/commit/", 403, "may not write"),
        ("GET", "/api/models/", 500, "refused the request"),
    ],
)
def test_a_refusal_is_reported_with_remedy_and_command(
    hub, run: Path, token: str, caplog: pytest.LogCaptureFixture, method: str, path: str, status: int, words: str
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.fail(method, path, status)
    with pytest.raises(InputError, match=words) as caught:
        _push_small(run)
    assert f"detr-ft push {run} {NAME}" in str(caught.value)
    assert str(status) in str(caught.value)
    assert token not in str(caught.value) + caplog.text
    assert not hub.repositories or not hub.repositories[NAME].files


@pytest.mark.parametrize("status", [429, 503, CUT])
@pytest.mark.parametrize(("method", "path"), [("GET", "/api/models/"), ("POST", "/commit/")])
def test_transient_errors_are_retried(
    hub, run: Path, caplog: pytest.LogCaptureFixture, status: int, method: str, path: str
) -> None:
    hub.fail(method, path, status, times=2)
    _push_small(run)
    assert caplog.text.count("next try in 0 s") == 2
    assert set(hub.repositories[NAME].files) == UPLOADED


def test_the_card_goes_through_the_hubs_checker(hub, run: Path) -> None:
    _push_small(run)
    assert hub.count("POST", "/api/validate-yaml") == 1
    (run / "README.md").write_text("---\nlicense: [mit\n---\nMine.")
    with pytest.raises(InputError, match=r"the push to me/bolts-and-nuts failed: .*Invalid metadata"):
        _push_small(run)


def test_a_refused_request_is_not_repeated(hub, run: Path) -> None:
    hub.fail("POST", "/commit/", 403)
    with pytest.raises(InputError, match="may not write"):
        _push_small(run)
    assert hub.count("POST", "/commit/") == 1


@pytest.mark.slow
def test_the_same_push_twice_changes_and_uploads_nothing(hub, run: Path, tmp_path: Path) -> None:
    _python(PUSH, [str(run), NAME], tmp_path / "home")
    commits, puts = dict(hub.repositories[NAME].commits), hub.count("PUT", "/lfs/")
    assert puts == 4
    _python(PUSH, [str(run), NAME], tmp_path / "home")
    assert hub.repositories[NAME].commits == commits
    assert hub.count("PUT", "/lfs/") == puts


@pytest.mark.slow
def test_an_interrupted_push_is_resumed(hub, run: Path, tmp_path: Path) -> None:
    """The weights were uploaded and the commit failed: the next push does not send them again."""
    hub.fail("POST", "/commit/", 500)
    command = [sys.executable, "-c", IMPATIENT, "push", str(run), NAME]
    done = subprocess.run(command, env=_environment(tmp_path / "home"), capture_output=True, text=True)
    assert done.returncode == 2
    assert f"To push again: detr-ft push {run} {NAME}" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("next try in 0 s") == 1
    puts = hub.count("PUT", "/lfs/")
    hub.failures.clear()
    _python(PUSH, [str(run), NAME], tmp_path / "home")
    assert hub.count("PUT", "/lfs/") == puts > 0
    assert set(hub.repositories[NAME].files) == UPLOADED


def test_the_command_that_pushes_again_is_the_whole_one(hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detr_ft.workflows.push._push_data", lambda recipe, name, private: ("pushed", False))
    hub.fail("POST", "repos/create", 403)
    done = CliRunner().invoke(app, ["push", str(run), NAME, "--space", "--dataset", "--public"])
    assert done.exit_code == 2
    assert f"detr-ft push {run} {NAME} --dataset --space --public" in done.output.replace("\n", "")


def test_a_wrong_token_is_reported(hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(InputError, match="doesn't accept the token"):
        _push_small(run)


def test_a_missing_token_is_reported_before_any_request(hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detr_ft.hub.push.get_token", lambda: None)
    with pytest.raises(InputError, match="hf auth login"):
        push(plan(run), NAME)
    assert not hub.requests


def test_an_unreachable_hub_is_reported_after_the_retries(
    run: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("detr_ft.utils.hub.time.sleep", waits.append)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(InputError, match="can't be reached") as caught:
            push(plan(run), NAME)
    assert waits == [1.0, 3.0, 9.0]
    assert "detr-ft push" in str(caught.value)


def test_a_hub_that_never_answers_is_given_up(run: Path, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detr_ft.utils.hub.TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr("detr_ft.utils.hub._RETRY_WAITS_SECONDS", (0.0,))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(InputError, match="can't be reached"):
            push(plan(run), NAME)


@pytest.mark.parametrize(
    "name", ["", "bolts", "me/../x", "a/b/c", "me/x.git", "me/-x", "me/bolts nuts", "/home/me/run"]
)
def test_an_invalid_name_is_reported(run: Path, name: str) -> None:
    with pytest.raises(InputError, match="can't name a repository"):
        push(plan(run), name)


def test_a_folder_without_a_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run directory"):
        plan(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"no config\.json and no model\.safetensors"):
        plan(tmp_path)
