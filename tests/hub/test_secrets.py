"""Tokens, keys and passwords are found in text, binary files, archives, pictures and data."""

from __future__ import annotations

import base64
import io
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError
from detr_ft.hub import push as hub_push
from detr_ft.hub.secrets import check_secrets, find_secret, known_secrets

# In parts, so that no scanner of this repository takes them for real ones.
TOKEN = "hf_" + "AbCd1234" * 4
SECRETS = {
    TOKEN: "Hugging Face",
    "api_org_" + "AbCd1234" * 4: "Hugging Face",
    "ghp_" + "a1B2" * 9: "GitHub",
    "github_pat_" + "a1B2" * 15: "GitHub",
    "sk-" + "proj-" + "a1B2" * 10: "API",
    "sk-" + "a1B2" * 12: "API",
    "AKIA" + "ABCD1234" * 2: "AWS",
    "-----BEGIN " + "OPENSSH PRIVATE KEY-----": "private key",
}


@pytest.fixture(autouse=True)
def no_secrets_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("detr_ft.hub.secrets.get_token", lambda: None)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in known_secrets().values():
        monkeypatch.delenv(name.removeprefix("the value of "), raising=False)


@pytest.mark.parametrize(("secret", "kind"), SECRETS.items(), ids=SECRETS.values())
def test_forms_of_secrets(secret: str, kind: str) -> None:
    for suffix in (".json", ".safetensors", ""):
        assert kind in str(find_secret(f'"{secret}"'.encode(), suffix))
    # In a binary file a length may be written before a string, as a byte that is a letter.
    assert kind in str(find_secret(b"A" + secret.encode(), ".onnx"))


@pytest.mark.parametrize(
    "text", ["hf_hub_download", "sk-folding-cube-animation", "shelf_" + "a" * 30, "task-" + "a" * 40, "ghp_x", "AKIA"]
)
def test_words_that_are_no_secrets(text: str) -> None:
    assert find_secret(text.encode(), ".html") is None


def safetensors(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path, metadata={"note": TOKEN})


def tensor_name(path: Path) -> None:
    save_file({f"layer.{TOKEN}": torch.zeros(3)}, path)


def comment(path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path, comment=TOKEN)


def exif(path: Path) -> None:
    fields = Image.Exif()
    fields[0x9C9C] = TOKEN.encode("utf-16-le")  # a comment of Windows
    Image.new("RGB", (8, 8)).save(path, exif=fields)


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("code.py", f"# {'x' * 100} {TOKEN}")


def page(path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG", comment=TOKEN)
    path.write_text(f'<img src="data:image/jpeg;base64,{base64.b64encode(picture.getvalue()).decode()}">')


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("model.safetensors", safetensors),
        ("model.safetensors", tensor_name),
        ("1.jpg", comment),
        ("1.jpg", exif),
        ("model.pt2", archive),
        ("report.html", page),
    ],
    ids=["metadata", "tensor name", "JPEG comment", "EXIF", "archive", "embedded picture"],
)
def test_places_of_secrets(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError, match=name) as caught:
        check_secrets([(str(tmp_path / name), tmp_path / name)])
    assert TOKEN not in str(caught.value)


def test_metadata_of_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "g", [], [])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"author": TOKEN})
    onnx.save(model, tmp_path / "model.onnx")
    assert find_secret(tmp_path / "model.onnx", ".onnx") is not None


def test_a_secret_across_two_chunks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detr_ft.hub.secrets._CHUNK_BYTES", 1000)
    for position in (970, 990, 999, 1000):
        (tmp_path / "a.safetensors").write_bytes(bytes(position) + TOKEN.encode() + bytes(3000))
        assert find_secret(tmp_path / "a.safetensors", ".safetensors") is not None, position


def test_values_of_the_environment_and_netrc_are_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 2 + "01234567")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse 1")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user-1234567")
    monkeypatch.setenv("SHORT_TOKEN", "a1")
    monkeypatch.setenv("WORD_TOKEN", "training")
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password 9876543210\n")
    assert "WANDB_API_KEY" in str(find_secret(b"x" + b"0123456789abcdef" * 2 + b"01234567", ".onnx"))
    assert "MLFLOW_TRACKING_PASSWORD" in str(find_secret(b"correct horse 1", ".md"))
    assert "netrc" in str(find_secret(b"key: 9876543210", ".yaml"))
    assert find_secret(b"user-1234567 a1 training", ".yaml") is None


def test_random_weights_have_no_secrets(tmp_path: Path) -> None:
    """30 MB of bytes of every value, and of floats; read in chunks, in seconds."""
    random = np.random.default_rng(0)
    contents = random.bytes(20_000_000), random.normal(size=2_500_000).astype(np.float32).tobytes()
    start = time.monotonic()
    for content in contents:
        (tmp_path / "model.safetensors").write_bytes(content)
        assert find_secret(tmp_path / "model.safetensors", ".safetensors") is None
    assert time.monotonic() - start < 10


@pytest.mark.slow
def test_half_a_gigabyte_of_random_weights_has_no_secrets(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        for _ in range(500):
            file.write(os.urandom(2**20))
    assert find_secret(tmp_path / "model.safetensors", ".safetensors") is None


@pytest.mark.parametrize("place", ["file", "class", "image"])
def test_a_secret_in_data_stops_their_push(hub: object, tmp_path: Path, place: str) -> None:
    data = load_data("generated:workshop?train=2&validation=1&edge=64")
    files = {"changes.jsonl": TOKEN if place == "file" else "none"}
    if place == "class":
        features = data["train"].features.copy()
        features["objects"]["category"].feature.names[0] = TOKEN
        data["train"] = data["train"].cast(features)
    if place == "image":
        comment(tmp_path / "1.jpg")
        row = data["train"][0] | {"image": {"path": str(tmp_path / "1.jpg"), "bytes": None}}
        data["train"] = data["train"].from_list([row], features=data["train"].features)
    with pytest.raises(InputError, match="Hugging Face"):
        hub_push.push_dataset(data, "me/data", files)
    assert hub.requests == []  # type: ignore[attr-defined]
