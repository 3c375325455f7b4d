from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from detr_ft.utils.drawing import class_color, draw

NAMES = ["cat", "größer собака", "x" * 200]
BOX = torch.tensor([[100.0, 200, 300, 400]])


def count(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == colour).all(axis=2).sum())


def test_a_large_image_and_its_box_are_drawn_at_their_size() -> None:
    image = Image.new("RGB", (640, 480), "white")
    drawn = draw(image, BOX, torch.tensor([0]), NAMES)
    assert drawn.size == (640, 480)
    ys, xs = np.nonzero((np.asarray(drawn) == class_color(0)).all(axis=2))
    assert (xs.min(), ys.max()) == (100, 400)
    assert drawn.getpixel((300, 390)) == drawn.getpixel((200, 400)) == class_color(0)
    assert drawn.getpixel((200, 300)) == (255, 255, 255)
    assert count(image, class_color(0)) == 0  # the given image is left alone


def test_a_small_image_is_enlarged_by_a_whole_factor_with_its_boxes() -> None:
    drawn = draw(Image.new("RGB", (96, 60), "white"), BOX / 10, torch.tensor([0]), NAMES)
    assert drawn.size == (384, 240)
    assert drawn.getpixel((120, 155)) == class_color(0)


def test_boxes_and_long_names_outside_are_drawn_along_the_border() -> None:
    boxes = torch.tensor([[-50.0, -50, 900, 900], [630, 10, 700, 20], [50, 50, 50, 50], [30, 40, 20, 10]])
    drawn = draw(Image.new("RGB", (640, 480), "white"), boxes, torch.tensor([0, 2, 1, 0]), NAMES, torch.rand(4))
    assert drawn.getpixel((0, 470)) == drawn.getpixel((639, 470)) == class_color(0)
    assert count(drawn, class_color(2)) > 1000


def test_a_score_is_written_and_nothing_to_draw_is_fine() -> None:
    image = Image.new("RGB", (640, 480), "white")
    without, scored = (draw(image, BOX, torch.tensor([1]), NAMES, one) for one in (None, torch.tensor([0.5])))
    assert count(scored, class_color(1)) > count(without, class_color(1))
    nothing = draw(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), NAMES)
    assert nothing.tobytes() == image.tobytes()


def test_the_best_box_is_on_top() -> None:
    boxes = torch.cat([BOX, BOX])
    drawn = draw(Image.new("RGB", (640, 480), "white"), boxes, torch.tensor([1, 0]), NAMES)
    assert drawn.getpixel((200, 400)) == class_color(1)


@pytest.mark.parametrize(
    ("boxes", "above"),
    [
        ([[100.0, 200, 140, 220]], True),
        ([[100.0, 3, 140, 23]], False),  # no room above
        ([[100.0, 200, 140, 220], [100, 186, 130, 198]], False),  # another object there
        ([[100.0, 200, 140, 220], [100, 186, 130, 198], [90, 222, 160, 240]], True),  # and more of another below
    ],
)
def test_a_name_stands_outside_its_box_where_it_covers_least(boxes: list[list[float]], above: bool) -> None:
    labels = torch.arange(len(boxes))
    drawn = np.asarray(draw(Image.new("RGB", (640, 480), "white"), torch.tensor(boxes), labels, ["a cup", "", ""]))
    own = (drawn == class_color(0)).all(axis=2)
    top, bottom = round(boxes[0][1]), round(boxes[0][3])
    assert not own[top + 3 : bottom - 2, 103:138].any()
    assert (bool(own[:top].any()), bool(own[bottom + 1 :].any())) == (above, not above)


def test_a_name_has_no_room_but_inside_a_box_as_high_as_the_image() -> None:
    drawn = np.asarray(
        draw(Image.new("RGB", (640, 480), "white"), torch.tensor([[0.0, 0, 640, 480]]), torch.tensor([0]), NAMES)
    )
    assert (drawn[3:9, 3:20] == class_color(0)).all(axis=2).sum() > 30


def test_colours_of_classes_differ_and_stay() -> None:
    assert len({class_color(label) for label in range(80)}) == 80
    assert class_color(3) == class_color(3)
    near = np.array([class_color(label) for label in range(8)], dtype=float)
    gaps = np.abs(near[:, None] - near[None]).sum(axis=2) + 1000 * np.eye(8)
    assert gaps.min() > 60


@pytest.mark.parametrize("label", range(30))
def test_names_are_readable_on_their_colour(label: int) -> None:
    drawn = draw(Image.new("RGB", (640, 480), "gray"), BOX, torch.tensor([label]), ["M"] * 30)
    tag = np.asarray(drawn)[170:200, 100:130].reshape(-1, 3)
    luminance = [_luminance(*pixel) for pixel in np.unique(tag, axis=0).tolist()]
    ground = _luminance(*class_color(label))
    assert max((max(one, ground) + 0.05) / (min(one, ground) + 0.05) for one in luminance) >= 4.5


def _luminance(*colour: int) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (one / 255 for one in colour)]
    return sum(weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
