"""Pictures that the model can't take are told, and leave the others alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from api import predict
from detect import Found, Problem, analyse, select
from detect_tab import MOST, Looking
from PIL import Image

from detr_ft.inference import Detector
from detr_ft.structures import Detections


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load("embedded:small")


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_a_picture_too_thin_for_the_model_is_told(detector: Detector, tmp_path: Path, size: tuple[int, int]) -> None:
    thin, good = tmp_path / "thin.png", tmp_path / "good.png"
    Image.new("RGB", size).save(thin)
    Image.new("RGB", (50, 40)).save(good)
    told = analyse(detector, str(thin))
    assert isinstance(told, Problem)
    assert told.message.startswith("thin.png: ")
    seen, _, _ = Looking(detector).many([str(thin), str(good)])
    assert [type(one) for one in seen] == [Problem, Found]
    with pytest.raises(Exception, match="nothing for the model"):
        predict(detector, str(thin))


def test_more_pictures_than_a_page_holds_are_told(detector: Detector, tmp_path: Path) -> None:
    files = []
    for number in range(MOST + 2):
        files.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (20, 20)).save(files[-1])
    seen, _, _ = Looking(detector).many(files)
    assert sum(isinstance(one, Found) for one in seen) == MOST
    assert isinstance(seen[-1], Problem)
    assert f"{MOST + 2} pictures were given" in seen[-1].message


def test_select_by_thresholds_and_classes() -> None:
    """Scores at a threshold are left out, as in evaluation."""
    thresholds = {"a": 0.6, "b": 0.5, "c": 0.4}
    config = SimpleNamespace(id2label=dict(enumerate("abc")), detr_ft={"thresholds": thresholds})
    detector = Detector(SimpleNamespace(config=config), None)
    detections = Detections(torch.rand(3, 4), torch.tensor([0.6, 0.5, 0.5]), torch.tensor([0, 1, 2]), ["a", "b", "c"])
    one = Found("a", (9, 9), "", detections, 0.0)
    assert select(detector, one, None, []).labels.tolist() == [2]
    assert select(detector, one, 0.0, ["b"]).labels.tolist() == [1]
    assert select(detector, one, 0.5, []).labels.tolist() == [0]


def test_boxes_are_cut_to_the_picture(tmp_path: Path) -> None:
    class Beyond:
        def detect(self, images: list[Image.Image]) -> list[Detections]:
            return [Detections(torch.tensor([[-5.0, -3, 70, 20]]), torch.tensor([0.9]), torch.tensor([0]))]

    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    told = analyse(Beyond(), str(tmp_path / "a.png"))  # type: ignore[arg-type]
    assert isinstance(told, Found)
    assert told.detections.boxes.tolist() == [[0, 0, 50, 20]]
