"""Only safetensors with the names of a checkpoint are loaded, whatever the files of its folder name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DetrForObjectDetection, ResNetBackbone, ResNetConfig

from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.models.build import build_model
from detr_ft.models.load import load_detector, load_model, read_config
from detr_ft.models.weights import read_tensors, read_weights
from detr_ft.training.checkpoint.state import load_tensors, load_weights

LOADERS: list[Callable[[str], Any]] = [load_model, load_detector, Detector.load]
ADVICE = ("weights_only", "trust_remote_code", "safe_globals", "allow_pickle")


class Evil:
    """An object that runs code when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def split(folder: Path) -> dict[str, str]:
    """Divide the weights of a checkpoint into two files, and return the `weight_map` of their index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    places = {key: names[number % 2] for number, key in enumerate(weights)}
    for name in names:
        save_file({key: weights[key] for key in weights if places[key] == name}, folder / name, {"format": "pt"})
    write_index(folder, places)
    return places


def write_index(folder: Path, places: object) -> None:
    content = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def test_a_divided_checkpoint_loads_whole(folder: Path, tiny_checkpoint: Path) -> None:
    split(folder)
    divided, whole = load_model(folder)[0].state_dict(), load_model(tiny_checkpoint)[0].state_dict()
    assert list(divided) == list(whole)
    assert all(torch.equal(divided[name], whole[name]) for name in whole)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    "name",
    ["w.bin", "../other.safetensors", "{folder}/other.safetensors", "sub/other.safetensors", r"..\o.safetensors",
     ".safetensors", "other.safetensors.bin", "", 3],
)  # fmt: skip
def test_an_index_names_plain_safetensors_only(folder: Path, load: Callable[[str], Any], name: object) -> None:
    places: dict[str, Any] = dict(split(folder))
    if isinstance(name, str) and name:
        name = name.format(folder=folder)
        (folder / "sub").mkdir()
        torch.save(Evil(folder / "canary"), folder / "evil")
        (folder / "evil").replace(folder / name)
    places[next(iter(places))] = name
    write_index(folder, places)
    with pytest.raises(
        InputError, match=r"model\.safetensors\.index\.json: weight_map must name safetensors files"
    ) as e:
        load(str(folder))
    assert repr(str(name)) in str(e.value)
    assert not (folder / "canary").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "no valid JSON"),
        (b"\xff\xfe", "no valid JSON"),
        (b"[" * 10**5, "no valid JSON"),
        (b"[]", "must have a mapping weight_map"),
        (b"{}", "must have a mapping weight_map"),
        (b'{"weight_map": []}', "must have a mapping weight_map"),
        (b'{"weight_map": {}}', "must have a mapping weight_map"),
        (b" " * (2**24 + 1), "must be smaller than 16 MiB"),
        (
            b'{"weight_map": {"a": "gone.safetensors", "b": "lost.safetensors"}}',
            "there is no 'gone.safetensors', 'lost.safetensors'",
        ),
    ],
    ids=["text", "bytes", "deep", "list", "no map", "a list as map", "empty", "huge", "missing files"],
)
def test_an_invalid_index_is_reported(folder: Path, content: bytes, words: str) -> None:
    split(folder)
    (folder / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"model\.safetensors\.index\.json: {words}"):
        load_model(folder)


def test_other_files_of_the_folder_are_not_loaded(folder: Path, tiny_checkpoint: Path) -> None:
    for name in ("adapter_model.bin", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "model.ckpt.index"):
        torch.save(Evil(folder / "canary"), folder / name)
    write_index(folder, {"a": "pytorch_model.bin"})
    (folder / ".metadata").write_bytes((folder / "pytorch_model.bin").read_bytes())
    loaded, plain = load_model(folder, pickled=True)[0].state_dict(), load_model(tiny_checkpoint)[0].state_dict()
    assert all(torch.equal(loaded[name], plain[name]) for name in plain)
    assert not (folder / "canary").exists()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").unlink()
    for load in LOADERS:
        with pytest.raises(InputError, match=r"there is no model\.safetensors.*pickled: true"):
            load(str(folder))
    assert not (folder / "canary").exists()


def test_pickled_weights_have_tensors_only(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for content in ({"a": Evil(folder / "canary")}, [1, 2], {"a": 1}):
        torch.save(content, folder / "pytorch_model.bin")
        with pytest.raises(InputError, match=r"pytorch_model\.bin: ") as caught:
            load_model(folder, pickled=True)
        assert not any(word in str(caught.value) for word in ADVICE)
    (folder / "pytorch_model.bin").unlink()
    torch.save(weights, folder / "pytorch_model-1.bin")
    places = dict.fromkeys(weights, "pytorch_model-1.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    load_model(folder, pickled=True)
    with pytest.raises(InputError, match=r"there is no model\.safetensors"):
        load_model(folder)
    assert not (folder / "canary").exists()


@pytest.mark.parametrize("content", [b"", b"\x80", b"\xff" * 64, b"\x10" + b"\0" * 7 + b"{" * 16])
def test_damaged_safetensors_are_named(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint/model\.safetensors: no valid safetensors file"):
        load_model(folder)
    with pytest.raises(InputError, match=r"checkpoint/model\.safetensors: no valid safetensors file"):
        load_weights(DetrForObjectDetection(read_config(str(folder))), folder)


def test_damaged_tensors_are_reported_without_advice(tmp_path: Path) -> None:
    file = tmp_path / "training.pt"
    torch.save({"a": torch.zeros(2)}, file)
    whole = file.read_bytes()
    torch.save({"a": Evil(tmp_path / "canary")}, file)
    for content in (file.read_bytes(), whole[:-40], b"", b"\x80\x04N.", b"no pickle", b"\x80\x02ccollections\nabc\n."):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"training\.pt: is damaged, or has other objects") as caught:
            load_tensors(tmp_path)
        assert not any(word in str(caught.value) for word in ADVICE)
    torch.save([1], file)
    with pytest.raises(InputError, match="must have a mapping, got list"):
        load_tensors(tmp_path)
    with pytest.raises(InputError, match=r"gone\.pt: can't be read: No such file"):
        read_tensors(tmp_path / "gone.pt")
    assert not (tmp_path / "canary").exists()


def test_the_backbone_of_an_architecture_has_the_same_limits(tmp_path: Path) -> None:
    fields = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    folder = tmp_path / "backbone"
    ResNetBackbone(ResNetConfig(**fields, out_features=["stage2"])).save_pretrained(folder)
    architecture = {"backbone_config": {"model_type": "resnet", **fields, "out_features": ["stage2"]}, "d_model": 32}
    build_model(architecture, ["a"], 64, str(folder))
    places = dict(split(folder))
    write_index(folder, places | {next(iter(places)): "../w.bin"})
    with pytest.raises(InputError, match=r"^model\.backbone: .*weight_map must name safetensors files"):
        build_model(architecture, ["a"], 64, str(folder))


@pytest.mark.parametrize(
    ("key", "value"),
    [("quantization_config", {"quant_method": "fp8"}), ("transformers_weights", "adapter_model.bin")],
)
def test_a_config_that_chooses_other_weights_is_refused(folder: Path, key: str, value: object) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "adapter_model.bin")
    config = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(config))
    for load in LOADERS:
        with pytest.raises(InputError, match=rf"{key} in its config\.json is not supported"):
            load(str(folder))


def test_adapters_are_refused(folder: Path) -> None:
    """They name the model that transformers loads in place of that of the folder."""
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "owner/other", "target_modules": ["q_proj"], "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    for load in LOADERS:
        with pytest.raises(InputError, match=r"adapters \(adapter_config\.json\) are not loaded"):
            load(str(folder))


def test_the_files_of_a_repository_are_checked_before_they_are_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[str] = []

    def download(repository: str, name: str, revision: str | None) -> str:
        assert (repository, revision) == ("owner/name", "commit")
        requested.append(name)
        if not (folder / name).is_file():
            raise FileNotFoundError(name) from None
        return str(folder / name)

    monkeypatch.setattr("detr_ft.models.weights.hf_hub_download", download)
    monkeypatch.setattr("detr_ft.models.weights.EntryNotFoundError", FileNotFoundError)
    weights = load_file(folder / "model.safetensors")
    places = dict(split(folder))
    assert set(read_weights("owner/name", "commit")) == set(weights)
    requested.clear()
    write_index(folder, places | {next(iter(places)): "../../../w.bin"})
    with pytest.raises(InputError, match="weight_map must name safetensors files"):
        read_weights("owner/name", "commit")
    assert requested == ["adapter_config.json", "model.safetensors", "model.safetensors.index.json"]
