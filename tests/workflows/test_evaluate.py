"""`detr-ft evaluate` on a model of any classes, on any data, and on detections made elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from transformers import (
    ConditionalDetrConfig,
    ConditionalDetrForObjectDetection,
    ConditionalDetrImageProcessor,
    ResNetConfig,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
)
from typer.testing import CliRunner

from detr_ft.cli.app import app
from detr_ft.data.export import write_coco
from detr_ft.data.schema import detection_features
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError
from detr_ft.evaluation.detections import align_classes, relabel
from detr_ft.structures import Detections
from detr_ft.workflows.evaluate import evaluate

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluating")
    write_coco(load_data("generated:shapes?train=4&validation=12&edge=128"), folder / "data")
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "500")

    def invoke(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["evaluate", *arguments])
        return done.exit_code, done.stdout, done.stderr

    return invoke


def test_a_report_and_detections_that_score_the_same(folder: Path, run: Run) -> None:
    options = ["embedded:small", "--data", "coco:data", "--split", "validation", "--json"]
    status, stdout, stderr = run(*options, "--out", "report", "--save-predictions", "found.json")
    assert status == 0, stderr
    figures = json.loads(stdout)
    assert {file.name for file in (folder / "report").iterdir()} == {"metrics.json", "report.html", "report.md"}
    reported = json.loads((folder / "report/metrics.json").read_text())
    assert {name: reported[name] for name in figures} == figures
    low, high = reported["intervals"]["map"]
    assert low < figures["map"] < high
    assert reported["images"] == 12
    assert reported["speed"]["parameters"] > 1e6
    page = (folder / "report/report.html").read_text()
    assert "small on coco:data" in page
    objects = sum(one["count"] for one in figures["per_class"].values())
    assert f'<th scope="row">objects</th><td>{objects}</td>' in page
    again = ["--from-predictions", "found.json", "--data", "coco:data", "--split", "validation", "--json"]
    status, stdout, stderr = run(*again, "--out", "other")
    assert status == 0, stderr
    assert json.loads(stdout)["map"] == pytest.approx(figures["map"], abs=1e-6)
    assert (folder / "other/report.html").is_file()
    status, _, stderr = run(*again, "--out", "other")
    assert status == 2
    assert "other is not empty" in stderr


def test_detections_are_what_pycocotools_reads(folder: Path, run: Run) -> None:
    options = ["embedded:small", "--data", "coco:data", "--split", "validation", "--json"]
    status, stdout, stderr = run(*options, "--save-predictions", "for_coco.json")
    assert status == 0, stderr
    (file,) = (folder / "data/validation").glob("*.json")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        protocol = COCOeval(truth, truth.loadRes(str(folder / "for_coco.json")), "bbox")
        protocol.evaluate()
        protocol.accumulate()
        protocol.summarize()
    assert protocol.stats[0] == pytest.approx(json.loads(stdout)["map"], abs=1e-6)


def test_classes_are_compared_by_name(folder: Path, run: Run) -> None:
    (file,) = (folder / "data/validation").glob("*.json")
    whole = file.read_text()
    options = ["embedded:small", "--data", "coco:data", "--split", "validation", "--json"]
    _, stdout, _ = run(*options)
    as_is = json.loads(stdout)
    content = json.loads(whole)
    ids = {one["id"]: 1000 - one["id"] for one in content["categories"]}
    try:
        for one in content["categories"]:
            one["id"] = ids[one["id"]]
        for one in content["annotations"]:
            one["category_id"] = ids[one["category_id"]]
        file.write_text(json.dumps(content))
        status, stdout, stderr = run(*options[:2], f"coco:{file}", "--json")  # a file named outright is train
        assert status == 0, stderr
        assert "another order" in stderr
        assert json.loads(stdout)["map"] == pytest.approx(as_is["map"], abs=1e-9)
        content["categories"][0]["name"] = "yeti"
        file.write_text(json.dumps(content))
        status, _, stderr = run(*options[:2], f"coco:{file}", "--json")  # a file named outright is train
        assert status == 2
        assert "classes that the model doesn't know: yeti" in stderr
    finally:
        file.write_text(whole)


def test_a_model_of_more_classes_than_the_data() -> None:
    """The model's last class, `heart`, is beyond the classes of the data."""
    data = load_data("generated:shapes?train=0&validation=12&edge=128")["validation"]
    names = data.features["objects"]["category"].feature.names
    without_hearts = [i for i, row in enumerate(data["objects"]) if names.index("heart") not in row["category"]]
    rows = data.select(without_hearts)
    fewer = rows.cast(detection_features(names[:-1]))
    outcome = evaluate("embedded:small", fewer)
    assert set(outcome.metrics.per_class) == set(names[:-1])
    assert outcome.metrics.map == pytest.approx(evaluate("embedded:small", rows).metrics.map, abs=1e-9)
    assert max(int(image.labels.max()) for image in outcome.detections if len(image)) < 7


def test_detections_of_classes_that_the_data_lack_do_not_count(caplog: pytest.LogCaptureFixture) -> None:
    order = align_classes(["cat", "dog", "bird"], ["bird", "cat"])
    assert order == [1, -1, 0]
    found = Detections(torch.zeros(3, 4), torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 2]))
    relabeled = relabel(found, order)
    assert (relabeled.labels.tolist(), relabeled.scores.tolist()) == ([1, 0], pytest.approx([0.9, 0.7]))
    assert align_classes(["cat", "dog"], ["cat", "dog"]) is None
    with pytest.raises(InputError, match="doesn't know: yeti"):
        align_classes(["cat"], ["cat", "yeti"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a model to evaluate, or from_predictions (--from-predictions) and data (--data)"),
        (["--from-predictions", "found.json"], "give a model to evaluate"),
        (["--from-predictions", "gone.json", "--data", "coco:data"], "gone.json: no such file"),
        (
            [
                "--from-predictions",
                "data/train/_annotations.coco.json",
                "--data",
                "coco:data",
                "--save-predictions",
                "x.json",
            ],
            "--save-predictions",
        ),
        (["embedded:small", "--data", "coco:data", "--out", "data"], "data is not empty"),
    ],
)
def test_invalid_arguments_are_reported(run: Run, arguments: list[str], words: str) -> None:
    status, _, stderr = run(*arguments)
    assert status == 2
    assert words in stderr
    assert "Traceback" not in stderr


def test_an_unwritable_place_is_reported(folder: Path, run: Run) -> None:
    (folder / "file").write_text("")
    options = ["embedded:small", "--data", "coco:data", "--split", "validation"]
    status, _, stderr = run(*options, "--save-predictions", "file/found.json")
    assert status == 2
    assert "file/found.json: can't be written" in stderr


def test_no_objects_at_all(tmp_path: Path, run: Run) -> None:
    nothing = {name: [] for name in ("id", "bbox", "category", "area", "iscrowd", "difficult", "truncated")}
    data = load_data("generated:shapes?train=4&validation=3&edge=128")
    names = data["train"].features["objects"]["category"].feature.names
    rows = [row | {"objects": nothing} for row in data["validation"]]
    data["validation"] = Dataset.from_list(rows, features=detection_features(names))
    data.save_to_disk(str(tmp_path / "saved"))
    status, stdout, stderr = run(
        "embedded:small", "--data", f"saved:{tmp_path}/saved", "--split", "validation", "--out", str(tmp_path / "out")
    )
    assert status == 0, stderr
    assert "map          none" in stdout or "map           none" in stdout
    assert "no objects" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize("family", ["yolos", "conditional_detr"])
def test_a_model_of_another_family_is_evaluated_by_its_own_processor(
    folder: Path, run: Run, tmp_path: Path, family: str
) -> None:
    names = (
        load_data("generated:shapes?train=4&validation=1&edge=64")["train"]
        .features["objects"]["category"]
        .feature.names
    )
    save_other(tmp_path / family, family, names)
    options = [str(tmp_path / family), "--data", "coco:data", "--split", "validation", "--json"]
    status, stdout, stderr = run(
        *options, "--out", str(tmp_path / "out"), "--save-predictions", str(tmp_path / "found.json")
    )
    assert status == 0, stderr
    assert json.loads(stdout)["map"] is not None
    reported = json.loads((tmp_path / "out/metrics.json").read_text())
    assert reported["matching"] is None
    assert reported["speed"]["parameters"] > 0
    rows = json.loads((tmp_path / "found.json").read_text())
    images = {row["image_id"] for row in rows}
    assert len(images) == 12
    assert max(sum(row["image_id"] == image for row in rows) for image in images) <= 100


def save_other(folder: Path, family: str, names: list[str]) -> None:
    """A tiny model of random weights, and its processor."""
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    if family == "yolos":
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        config = YolosConfig(image_size=[64, 64], patch_size=16, num_detection_tokens=9, **sizes, **labels)
        YolosForObjectDetection(config).save_pretrained(folder)
        YolosImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    else:
        backbone = ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
        )
        sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 9}
        config = ConditionalDetrConfig(backbone_config=backbone, **sizes, **heads, **labels)
        ConditionalDetrForObjectDetection(config).save_pretrained(folder)
        ConditionalDetrImageProcessor(size={"max_height": 64, "max_width": 64}).save_pretrained(folder)


def test_a_model_scores_the_same_on_data_that_states_twice_the_size(tmp_path: Path) -> None:
    """The images were reduced after they were annotated."""
    write_coco(load_data("generated:shapes?train=1&validation=6"), tmp_path / "data")
    as_is = evaluate("embedded:small", f"coco:{tmp_path}/data", split="validation", batch_size=4).metrics
    assert as_is.map is not None
    assert as_is.map > 0.1
    (file,) = (tmp_path / "data" / "validation").glob("*.json")
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["width"], image["height"] = 2 * image["width"], 2 * image["height"]
    for one in content["annotations"]:
        one["bbox"], one["area"] = [2 * value for value in one["bbox"]], 4 * one["area"]
    file.write_text(json.dumps(content))
    assert evaluate("embedded:small", f"coco:{tmp_path}/data", split="validation", batch_size=4).metrics == as_is
