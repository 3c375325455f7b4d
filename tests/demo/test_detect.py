"""Pictures that the model can't take are told, and leave the others alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from api import predict
from detect import Found, Problem, analyse
from detect_tab import MOST, Looking
from PIL import Image

from detr_ft.inference import Detector


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
    assert told.message.startswith("thin.png: an image of")
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
