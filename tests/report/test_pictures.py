"""Example pictures of images with objects, without and with detections above the thresholds; data URIs within a budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from detr_ft.data.generated.generate import generate
from detr_ft.report import pictures
from detr_ft.report.pictures import data_uris, write_examples
from detr_ft.structures import Detections

DATA = generate("workshop?train=0&validation=0&test=9&edge=64")["test"]


def detections(score: float) -> list[Detections]:
    return [Detections(torch.tensor([[5.0, 5, 40, 40]]), torch.tensor([score]), torch.tensor([1]))] * len(DATA)


def test_four_images_twice(tmp_path: Path) -> None:
    written = write_examples(tmp_path, DATA, detections(0.9), {"wrench": 0.5})
    names = [f"{number}{which}.jpg" for number in (1, 2, 3, 4) for which in ("", "-found")]
    assert [one.relative_to(tmp_path / "examples").as_posix() for one in written] == names
    assert all(one.is_file() for one in written)


@pytest.mark.parametrize(("score", "drawn"), [(0.8, 1), (0.6, 0)])
def test_only_detections_above_the_threshold_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: float, drawn: int
) -> None:
    recorded: list[list[int]] = []

    def draw(image: Image.Image, boxes: torch.Tensor, labels: torch.Tensor, *rest: object) -> Image.Image:
        recorded.append(labels.tolist())
        return image

    monkeypatch.setattr(pictures, "draw", draw)
    write_examples(tmp_path, DATA, detections(score), {"wrench": 0.7})
    assert recorded == [[1] * drawn] * 4


def test_images_without_objects_are_skipped_and_large_ones_resized(tmp_path: Path) -> None:
    empty = DATA.map(lambda row: {"objects": {name: [] for name in row["objects"]}}, features=DATA.features)
    assert write_examples(tmp_path, empty, detections(0.9), {}) == []
    large = generate("workshop?train=0&validation=0&test=2&edge=1000")["test"]
    (first, *_) = write_examples(tmp_path, large, detections(0.9)[:2], {})
    with Image.open(first) as picture:
        assert max(picture.size) == 800


def test_data_uris_keep_the_budget() -> None:
    noise = Image.effect_noise((200, 200), 90).convert("RGB")

    def draw_at(side: int) -> list[Image.Image]:
        return [noise.resize((side, side))] * 3

    sizes = ((200, 90), (50, 50))
    large = data_uris(draw_at, sizes, 10**9)
    small = data_uris(draw_at, sizes, sum(map(len, large)) - 1)
    assert len(large) == len(small) == 3
    assert len(small[0]) < len(large[0])
    assert small[0].startswith("data:image/jpeg;base64,")
    assert data_uris(draw_at, sizes, 2 * len(small[0])) == small[:2]
    assert data_uris(lambda side: [], sizes, 0) == []
