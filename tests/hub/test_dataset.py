"""A repaired data set is pushed to a new, private repository, with its images and its changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset

from detr_ft.data.export import write_coco
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError
from detr_ft.hub.push import check_target

NAME = "me/repaired"


def doctor(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: huggingface_hub reads its settings when it is imported."""
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "detr_ft", "doctor", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_repaired_copy_is_pushed(hub, tmp_path: Path) -> None:
    data = load_data("generated:workshop?train=6&validation=2&edge=64")
    write_coco(data, tmp_path / "data")
    file = tmp_path / "data/train/_annotations.coco.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [1, 1, 0, 5]
    file.write_text(json.dumps(content))
    done = doctor(str(tmp_path / "data"), "--fix", f"hub:{NAME}", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/datasets/{NAME}" in done.stderr
    repository = hub.repositories[f"datasets/{NAME}"]
    assert repository.private
    (change,) = map(json.loads, repository.files["changes.jsonl"].decode().splitlines())
    assert change["what"] == "left out: zero size"
    shard = next(content for name, content in repository.files.items() if "train" in name and name.endswith(".parquet"))
    (tmp_path / "shard.parquet").write_bytes(shard)
    rows = Dataset.from_parquet(str(tmp_path / "shard.parquet"), cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 6
    assert rows.features["objects"] == data["train"].features["objects"]
    assert rows[0]["image"].size == (data["train"][0]["width"], data["train"][0]["height"])
    again = doctor(str(tmp_path / "data"), "--fix", f"hub:{NAME}", home=tmp_path / "home")
    assert again.returncode == 2
    assert "exists on the Hub and is not overwritten" in again.stderr


def test_a_wrong_name_or_no_token_is_reported_before_data_are_read(
    hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="USER/NAME"):
        check_target("repaired")
    monkeypatch.setattr("detr_ft.hub.push.get_token", lambda: None)
    with pytest.raises(InputError, match="no token to push me/repaired"):
        check_target(NAME)
    assert hub.requests == []


PUSH = """
import sys
from detr_ft.data.sources.load import load_data
from detr_ft.hub.push import has_data, push_dataset
from detr_ft.utils import hub
hub._RETRY_WAITS_SECONDS = (0.0,)
if not has_data(sys.argv[1]):
    push_dataset(load_data("generated:workshop?train=3&validation=2&edge=64"), sys.argv[1], {"notes.txt": "mine"})
"""


@pytest.mark.slow
def test_an_interrupted_push_is_resumed_and_a_complete_one_is_unchanged(hub, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def push() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", PUSH, NAME], env=environment, capture_output=True, text=True)

    hub.fail("POST", "/commit/", 500)
    assert "The original is unchanged" in push().stderr
    repository = hub.repositories[f"datasets/{NAME}"]
    assert repository.files == {}
    hub.failures.clear()
    assert push().returncode == 0
    assert {"data/train-00000-of-00001.parquet", "notes.txt"} <= set(repository.files)
    commits = dict(repository.commits)
    assert push().returncode == 0
    assert repository.commits == commits
