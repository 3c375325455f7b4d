"""Checks and choices before the first step of a run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import DatasetDict
from transformers import AutoImageProcessor

from detr_ft.data.export import write_coco
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.schema import class_names
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError
from detr_ft.models.load import load_model
from detr_ft.recipe.load import load_recipe
from detr_ft.recipe.recipe import Recipe
from detr_ft.workflows.prepare import prepare
from detr_ft.workflows.train import train


@pytest.mark.parametrize("square", [True, False])
def test_another_size_moves_the_canvas_along(tiny_checkpoint: Path, tmp_path: Path, square: bool) -> None:
    """A checkpoint that was trained on a square is trained, and served, on the new size's square."""
    processor = AutoImageProcessor.from_pretrained(tiny_checkpoint)
    processor.pad_size = {"height": 64, "width": 64} if square else None
    (tmp_path / "start").mkdir()
    for file in tiny_checkpoint.iterdir():
        (tmp_path / "start" / file.name).write_bytes(file.read_bytes())
    processor.save_pretrained(tmp_path / "start")
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{checkpoint: {tmp_path}/start}}\n"
        'data: {source: "generated:workshop?train=4&validation=2&edge=64", longest_edge: 96}\n'
        "train: {output_dir: runs/x}\n"
    )
    recipe = load_recipe(tmp_path / "recipe.yaml")
    prepared = prepare(recipe, load_data(recipe.data.source))
    prepared.processor.save_pretrained(tmp_path / "saved")
    served = ImageFormat.of(AutoImageProcessor.from_pretrained(tmp_path / "saved"))
    assert served.canvas == ((96, 96) if square else None)
    assert served.resized(64, 32) == (96, 48)


def recipe_of(tmp_path: Path, checkpoint: Path, **data: object) -> Recipe:
    section = {"source": f"coco:{tmp_path}/data", **data}
    values = {"model": {"checkpoint": str(checkpoint)}, "data": section, "train": {"output_dir": f"{tmp_path}/run"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    return load_recipe(tmp_path / "recipe.yaml")


@pytest.fixture
def some_bad(tmp_path: Path) -> list[Path]:
    """A data set of 200 and 100 images, of which two are truncated, one of them held out, and one is missing."""
    write_coco(load_data("generated:workshop?train=200&validation=100&edge=64"), tmp_path / "data")
    train, held_out = (sorted((tmp_path / "data" / split).glob("*.png")) for split in ("train", "validation"))
    bad = [train[3], held_out[5], train[9]]
    for image in bad[:2]:
        image.write_bytes(image.read_bytes()[:300])
    bad[2].unlink()
    return bad


def test_bad_images_stop_a_run_or_are_skipped_and_listed(
    tiny_checkpoint: Path, tmp_path: Path, some_bad: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    recipe = recipe_of(tmp_path, tiny_checkpoint)
    data = load_data(recipe.data.source)
    with pytest.raises(InputError) as caught:
        prepare(recipe, data)
    assert all(str(image) in str(caught.value) for image in some_bad)
    assert "data.bad_images=skip" in caught.value.problems[-1]
    with pytest.raises(InputError, match=r"data\.bad_images=skip data\.max_bad_fraction=0\.01"):
        prepare(recipe_of(tmp_path, tiny_checkpoint, max_bad_fraction=0.001), data)
    prepared = prepare(recipe_of(tmp_path, tiny_checkpoint, bad_images="skip"), data)
    assert (len(prepared.train), len(prepared.validation)) == (198, 99)
    assert all(f"skipped: {image}" in caplog.text for image in some_bad)
    with pytest.raises(
        InputError, match=r"1 of 100 images of the train split can't be trained on, more than .* \(0\.001\)"
    ):
        prepare(
            recipe_of(tmp_path, tiny_checkpoint, bad_images="skip", max_bad_fraction=0.001),
            DatasetDict(train=data["validation"], validation=data["validation"]),
        )


@pytest.mark.parametrize("weights", [None, b"not safetensors"])
def test_a_bad_image_is_reported_before_weights_are_read(
    tiny_checkpoint: Path, tmp_path: Path, some_bad: list[Path], weights: bytes | None
) -> None:
    """The checkpoint has its config files, and weights that can't be loaded, or none."""
    start = tmp_path / "start"
    start.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (start / name).write_bytes((tiny_checkpoint / name).read_bytes())
    if weights is not None:
        (start / "model.safetensors").write_bytes(weights)
    recipe = recipe_of(tmp_path, start)
    data = load_data(recipe.data.source)
    with pytest.raises(InputError, match=r"data\.bad_images=skip"):
        prepare(recipe, data)
    with pytest.raises(InputError, match=r"start(/model\.safetensors)?: "):
        prepare(recipe, load_data("generated:workshop?train=4&validation=2&edge=64"))


def test_weights_are_loaded_once(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def load(checkpoint: str, revision: str | None, pickled: bool) -> tuple[Any, Any]:
        calls.append(checkpoint)
        return load_model(checkpoint)

    monkeypatch.setattr("detr_ft.workflows.prepare.load_model", load)
    prepared = prepare(
        recipe_of(tmp_path, tiny_checkpoint), load_data("generated:workshop?train=4&validation=2&edge=64")
    )
    assert calls == [str(tiny_checkpoint)]
    assert ImageFormat.of(prepared.processor) == prepared.format


def test_a_rate_for_a_frozen_part_is_refused_before_files_are_written(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{checkpoint: {tiny_checkpoint}, freeze: [encoder]}}\n"
        'data: {source: "generated:workshop?train=4&validation=2&edge=64"}\n'
        f"train: {{output_dir: {tmp_path}/run}}\n"
        "optim: {encoder_learning_rate: 1.0e-4}\n"
    )
    with pytest.raises(InputError, match=r"optim\.encoder_learning_rate: encoder is frozen"):
        train(tmp_path / "recipe.yaml")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_is_cut_and_fitted_to_the_data(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Queries, layers and synonyms of the recipe, the last from a file beside it; the label map is saved in the config."""
    data = load_data("generated:workshop?train=6&validation=2&edge=64")
    kinds = class_names(data["train"])
    recipe = recipe_of(tmp_path, tiny_checkpoint)
    (tmp_path / "names.yaml").write_text(f"{kinds[2]}: cat\n{kinds[0]}: owl\n")
    section = recipe.model.model_copy(update={"synonyms": "names.yaml", "num_queries": 30, "decoder_layers": 1})
    with caplog.at_level(logging.INFO):
        prepared = prepare(recipe.model_copy(update={"model": section}), data)
    config = prepared.model.config
    assert (config.num_queries, config.decoder_layers) == (30, 1)
    assert config.detr_ft["labels"]["reused"] == {kinds[0]: "owl", kinds[2]: "cat"}
    assert config.detr_ft["labels"]["new"] == [name for name in kinds if name not in (kinds[0], kinds[2])]
    assert f"2 of {len(kinds)} classes known to it ({kinds[0]} from owl, {kinds[2]} from cat)" in caplog.text
    assert "queries: 30 of the checkpoint's 8, by use in 6 images" in caplog.text


def test_an_invalid_file_of_synonyms_is_reported(tiny_checkpoint: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_checkpoint)
    (tmp_path / "names.yaml").write_text("drill: [cat]\nsaw: 3\n")
    section = recipe.model.model_copy(update={"synonyms": "names.yaml"})
    with pytest.raises(InputError) as caught:
        prepare(
            recipe.model_copy(update={"model": section}), load_data("generated:workshop?train=6&validation=2&edge=64")
        )
    assert len(caught.value.problems) == 2
    assert all("names.yaml" in problem and "NAME" in problem for problem in caught.value.problems)


def test_a_run_loads_and_notes_the_commit_that_a_branch_is(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[str | None] = []

    def load(checkpoint: str, revision: str | None, pickled: bool) -> tuple[Any, Any]:
        requested.append(revision)
        return load_model(checkpoint)

    monkeypatch.setattr(
        "detr_ft.workflows.prepare.commit_of", lambda name, revision: "0123abc" if revision == "main" else None
    )
    monkeypatch.setattr("detr_ft.workflows.prepare.load_model", load)
    recipe = recipe_of(tmp_path, tiny_checkpoint)
    section = recipe.model.model_copy(update={"revision": "main"})
    prepared = prepare(
        recipe.model_copy(update={"model": section}), load_data("generated:workshop?train=4&validation=2&edge=64")
    )
    assert prepared.revision == "0123abc"
    assert requested == ["0123abc"]
    assert recipe.pinned(None) == recipe
    assert recipe.pinned("0123abc").model.revision == "0123abc"
