"""A Space starts from its own folder, with nothing but what its requirements bring, and answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from hub.running_space import running
from huggingface_hub import SpaceCard
from PIL import Image

from detr_ft.data.generated.generate import generate
from detr_ft.data.images import open_image
from detr_ft.hub.space import requirements, write_space
from detr_ft.hub.upload_plan import plan
from detr_ft.utils.assets import embedded_checkpoint

NAME = "me/shapes"


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Space of a run whose model is the embedded one, with a picture of the shapes that it knows."""
    run = Path(shutil.copytree(embedded_checkpoint("small"), tmp_path_factory.mktemp("space") / "run"))
    (run / "examples").mkdir()
    picture = open_image(generate("shapes?train=0&validation=0&test=1&seed=3")["test"][0]["image"])
    picture.save(run / "examples/1.jpg")
    picture.save(run / "examples/1-found.jpg")
    (run / "notes.txt").write_text("mine")
    write_space(plan(run), NAME, run.parent / "space")
    return run.parent / "space"


def test_it_holds_the_demo_the_model_and_the_toolkit_alone(space: Path) -> None:
    assert {one.name for one in space.iterdir()} == {
        "README.md", "requirements.txt", "space.py", "demo", "detr_ft", "examples", "model",
    }  # fmt: skip
    assert {one.name for one in (space / "model").iterdir()} == {
        "config.json", "model.safetensors", "preprocessor_config.json",
    }  # fmt: skip
    assert [one.name for one in (space / "examples").iterdir()] == ["1.jpg"]
    assert not list(space.rglob("__pycache__"))


def test_its_card_has_the_settings_of_the_space(space: Path) -> None:
    data = SpaceCard.load(space / "README.md").data
    assert (data.sdk, data.app_file, data.models) == ("gradio", "space.py", [NAME])
    assert (space / data.app_file).is_file()
    pins = dict(line.split("==") for line in requirements().splitlines())
    assert pins["gradio"] == data.sdk_version
    assert {"torch", "transformers", "scipy"} <= pins.keys()
    assert not any("+" in version for version in pins.values())


@pytest.fixture(scope="module")
def address(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(space, tmp_path_factory.mktemp("venv")) as where:
        yield where


@pytest.mark.slow
def test_it_answers_a_question(space: Path, address: str) -> None:
    client = Client(address, verbose=False)
    example = space / "examples/1.jpg"
    detections = client.predict(handle_file(example), api_name="/predict")
    truth = generate("shapes?train=0&validation=0&test=1&seed=3")["test"]
    names = truth.features["objects"]["category"].feature.names
    there = {names[label] for label in truth[0]["objects"]["category"]}
    assert there & {one["class"] for one in detections}
    with Image.open(example) as picture:
        assert all(0 <= side <= max(picture.size) + 1 for one in detections for side in one["box"])
    truth_of_it = [{"class": one["class"], "box": [max(0.0, side) for side in one["box"]]} for one in detections[:1]]
    output = client.predict(handle_file(example), truth_of_it, None, api_name="/match")
    assert [pair["object"] for pair in output["pairs"]] == [0]
