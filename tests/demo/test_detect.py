"""Detection in uploaded images: messages for unusable ones, selection, clipped boxes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from api import predict
from detect import DetectedImage, Problem, detect_file, select
from detect_tab import MAX_IMAGES, DetectHandlers
from PIL import Image

from detr_ft.inference import Detector
from detr_ft.structures import Detections


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load("embedded:small")


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_an_image_too_thin_for_the_model_is_a_problem(
    detector: Detector, tmp_path: Path, size: tuple[int, int]
) -> None:
    thin, good = tmp_path / "thin.png", tmp_path / "good.png"
    Image.new("RGB", size).save(thin)
    Image.new("RGB", (50, 40)).save(good)
    problem = detect_file(detector, str(thin))
    assert isinstance(problem, Problem)
    assert "thin.png: " in problem.message
    assert f"{size[0]}x{size[1]} pixels" in problem.message
    assert str(tmp_path) not in problem.message
    results, _, _ = DetectHandlers(detector).detect_several([str(thin), str(good)])
    assert [type(result) for result in results] == [Problem, DetectedImage]
    with pytest.raises(Exception, match="can't process this image"):
        predict(detector, str(thin))


def test_more_images_than_the_limit_are_a_problem(detector: Detector, tmp_path: Path) -> None:
    files = []
    for number in range(MAX_IMAGES + 2):
        files.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (20, 20)).save(files[-1])
    results, _, _ = DetectHandlers(detector).detect_several(files)
    assert sum(isinstance(result, DetectedImage) for result in results) == MAX_IMAGES
    assert isinstance(results[-1], Problem)
    assert f"{MAX_IMAGES} of {MAX_IMAGES + 2} images" in results[-1].message


def test_select_by_thresholds_and_classes() -> None:
    """Scores at a threshold are left out, as in evaluation."""
    thresholds = {"a": 0.6, "b": 0.5, "c": 0.4}
    config = SimpleNamespace(id2label=dict(enumerate("abc")), detr_ft={"thresholds": thresholds})
    detector = Detector(SimpleNamespace(config=config), None)
    detections = Detections(torch.rand(3, 4), torch.tensor([0.6, 0.5, 0.5]), torch.tensor([0, 1, 2]), ["a", "b", "c"])
    result = DetectedImage("a", (9, 9), "", detections, 0.0)
    expected = detections.above_each([0.6, 0.5, 0.4])
    assert select(detector, result, None, []).labels.tolist() == expected.labels.tolist() == [2]
    assert select(detector, result, 0.0, ["b"]).labels.tolist() == [1]
    assert select(detector, result, 0.5, []).labels.tolist() == [0]


def test_boxes_are_clipped_to_the_image(tmp_path: Path) -> None:
    class Exceeding:
        def detect(self, images: list[Image.Image]) -> list[Detections]:
            return [Detections(torch.tensor([[-5.0, -3, 70, 20]]), torch.tensor([0.9]), torch.tensor([0]))]

    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    result = detect_file(Exceeding(), str(tmp_path / "a.png"))  # type: ignore[arg-type]
    assert isinstance(result, DetectedImage)
    assert result.detections.boxes.tolist() == [[0, 0, 50, 20]]
