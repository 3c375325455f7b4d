"""The command `export`: files that answer as PyTorch does, or none."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from detr_ft.cli.app import app
from detr_ft.cli.text import describe_export
from detr_ft.data.images import open_image
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError
from detr_ft.evaluation.metrics import ExportedFile
from detr_ft.inference import Detector, OnnxDetector
from detr_ft.models.benchmark import Agreement, compare_runtimes
from detr_ft.models.families.detr import DETR
from detr_ft.models.load import load_model
from detr_ft.utils.assets import embedded_checkpoint
from detr_ft.workflows import export as exporting
from detr_ft.workflows.export import ExportOutcome, export

DATA = "generated:shapes?train=4&validation=20"


@pytest.mark.slow
def test_a_model_is_exported_checked_and_timed(tmp_path: Path) -> None:
    outcome = export("embedded:small", ["int8", "torch"], DATA, output_dir=tmp_path / "out")
    assert {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*") if file.is_file()} == {
        "config.json", "export.json", "model.pt2", "model.safetensors", "onnx/model.onnx",
        "onnx/model_quantized.onnx", "preprocessor_config.json", "written.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "out/export.json").read_text()) == json.loads(json.dumps(outcome.as_json()))
    assert outcome.agreement["onnx"].images == 20
    assert max(outcome.agreement["onnx"].probability, outcome.agreement["onnx"].box) < 1e-4
    maps = {kind: metrics["map"] for kind, metrics in outcome.metrics.items()}
    assert maps["pytorch"] > 0.4  # type: ignore[operator]
    assert abs(maps["pytorch"] - maps["int8"]) < 0.1  # type: ignore[operator]
    assert set(outcome.latency) == {"pytorch", "onnx", "int8", "torch"}
    assert len(describe_export(outcome).splitlines()) == 5 + 3
    assert_onnx_finds_the_same(tmp_path / "out")
    model, _ = load_model(str(tmp_path / "out"))
    program = torch.export.load(tmp_path / "out/model.pt2").module()
    pixels, mask = torch.randn(1, 3, 96, 96), torch.ones(1, 96, 96, dtype=torch.long)
    with torch.no_grad():
        expected = model.eval()(pixel_values=pixels, pixel_mask=mask)
        torch.testing.assert_close(program(pixels, mask)[0], expected.logits, atol=1e-4, rtol=1e-4)


def assert_onnx_finds_the_same(folder: Path) -> None:
    images = [open_image(row["image"]) for row in load_data(DATA)["validation"].with_format(None)][:5]
    one, other = Detector.load(str(folder)), OnnxDetector.load(str(folder))
    assert (other.names, other.thresholds) == (one.names, one.thresholds)
    for first, second in zip(one.detect(images), other.detect(images), strict=True):
        torch.testing.assert_close(second.scores, first.scores, atol=1e-4, rtol=0)
        sure = first.scores > 0.05
        assert torch.equal(second.labels[sure], first.labels[sure])
        torch.testing.assert_close(second.boxes[sure], first.boxes[sure], atol=0.05, rtol=0)
    small = OnnxDetector.load(str(folder), "onnx/model_quantized.onnx").detect(images)
    assert sum(len(found.above(0.5).scores) for found in small) > 0


def test_a_missing_or_damaged_onnx_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.onnx: .*detr-ft export .* --to onnx"):
        OnnxDetector.load(str(tmp_path))
    copy = tmp_path / "copy"
    shutil.copytree(embedded_checkpoint("small"), copy)
    (copy / "onnx").mkdir()
    (copy / "onnx/model.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"model\.onnx: .*Export the model again"):
        OnnxDetector.load(copy, Path("onnx/model.onnx"))
    for inside in (copy / "onnx", copy / "onnx/model.onnx"):
        with pytest.raises(InputError, match=rf"config\.json\. Load {copy}, file onnx/model\.onnx$"):
            OnnxDetector.load(inside)


def test_an_onnx_file_of_another_model_is_reported(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save_model

    def model_of(inputs: list[str], logits: list[object]) -> object:
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, logits) for name in inputs]
        given = [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits),
            helper.make_tensor_value_info("pred_boxes", TensorProto.FLOAT, logits),
        ]
        nodes = [helper.make_node("Identity", [inputs[0]], [one.name]) for one in given]
        return helper.make_model(
            helper.make_graph(nodes, "made", ends, given), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
        )

    copy = tmp_path / "copy"
    shutil.copytree(embedded_checkpoint("small"), copy)
    (copy / "onnx").mkdir()
    save_model(model_of(["x"], [1, 9, 9]), copy / "onnx/model.onnx")
    with pytest.raises(InputError, match=r"onnx: .*got \['x'\].*detr-ft export"):
        OnnxDetector.load(str(copy))
    save_model(model_of(["pixel_values", "pixel_mask"], [1, 9, 4]), copy / "onnx/model.onnx")
    with pytest.raises(InputError, match=r"onnx: has 3 classes.*config\.json.*Export the model again"):
        OnnxDetector.load(str(copy))


@pytest.mark.slow
def test_an_export_with_other_outputs_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def __call__(self, pixels: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(len(pixels), 25, 9), torch.zeros(len(pixels), 25, 4)

    monkeypatch.setattr(exporting, "OnnxModel", lambda path: Other())
    monkeypatch.setattr(exporting, "write_onnx", lambda program, path: None)
    with pytest.raises(InputError, match=r"ONNX Runtime differs from PyTorch by 0\.\d+ in a probability"):
        export("embedded:small", "onnx", DATA, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(exporting, "compare_runtimes", lambda *_: Agreement(1, 0.0, math.nan))
    with pytest.raises(InputError, match="nan in a box"):
        export("embedded:small", "onnx", DATA, output_dir=tmp_path / "out")


def test_no_number_is_as_far_apart_as_can_be() -> None:
    def one(pixels: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)

    def other(pixels: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(1, 2, 3), torch.full((1, 2, 4), torch.nan)

    _, processor = load_model("embedded:small")
    apart = compare_runtimes(one, other, DETR, processor, [Image.new("RGB", (64, 64))] * 2)
    assert apart.probability == 0
    assert math.isnan(apart.box)


def test_mistakes_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"to \(--to\): .* onnx, int8, torch, got tflite"):
        export("embedded:small", ["tflite"], DATA, output_dir=tmp_path / "out")
    with pytest.raises(InputError, match=r"embedded:small .* output_dir \(--output-dir\)"):
        export("embedded:small", ["onnx"], DATA)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"full is not empty .* output_dir \(--output-dir\)"):
        export("embedded:small", ["onnx"], DATA, output_dir=tmp_path / "full")
    with pytest.raises(InputError, match="classes that the model doesn't know"):
        export("embedded:small", "onnx", "generated:workshop?train=2&validation=2&edge=64", output_dir=tmp_path / "a")
    assert not (tmp_path / "a/onnx").exists()


def test_classes_are_in_the_order_of_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config is written with its keys sorted as text: "10" comes before "2"."""
    requested: list[list[str]] = []

    def stop(of_model: list[str], of_data: list[str]) -> None:
        requested.append(of_model)
        raise InputError("enough")

    model, processor = load_model("embedded:small")
    model.config.id2label = {index: str(index) for index in (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)}
    monkeypatch.setattr(exporting, "load_model", lambda name: (model, processor))
    monkeypatch.setattr(exporting, "align_classes", stop)
    with pytest.raises(InputError, match="enough"):
        export("embedded:small", "onnx", DATA, output_dir=tmp_path / "out")
    assert requested == [[str(index) for index in range(12)]]


def test_metrics_of_images_without_objects_are_unknown(tmp_path: Path) -> None:
    nothing = {"map": None, "map_50": None}
    outcome = ExportOutcome(
        tmp_path,
        {"int8": ExportedFile("onnx/model_quantized.onnx", 2**20)},
        {"int8": Agreement(3, 0.1, 0.2)},
        {"pytorch": {"median": 2.0}, "int8": {"median": 1.0}},
        {"pytorch": nothing, "int8": nothing},
    )
    assert "0.50x" in describe_export(outcome)
    assert "no objects" in describe_export(outcome)


def test_the_command_writes_into_the_models_own_folder(tmp_path: Path) -> None:
    shutil.copytree(embedded_checkpoint("small"), tmp_path / "mine")
    config = (tmp_path / "mine/config.json").read_bytes()
    done = CliRunner().invoke(app, ["export", str(tmp_path / "mine"), "--to", "torch", "--data", DATA])
    assert done.exit_code == 0, done.output
    assert "torch.export" in done.output
    assert f"written: {tmp_path / 'mine/model.pt2'}" in done.output
    assert (tmp_path / "mine/model.pt2").is_file()
    assert (tmp_path / "mine/config.json").read_bytes() == config
