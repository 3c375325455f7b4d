"""Box formats: what is converted, what is recognised, and what is left in doubt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from detr_ft.data.box_format import FORMATS, BoxFormat, check_format, contradicting_format, recognize_format
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError

XYWH, XYXY, CXCYWH = FORMATS[:3]


def random_boxes(format: BoxFormat, count: int, seed: int, smallest: float = 0.05, largest: float = 0.6):
    """Boxes within images, written in a format as tools write it (whole pixels, six decimals of fractions)."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(100, 2000, (count, 2)).astype(float)
    shares = rng.uniform(smallest, largest, (count, 2))
    low = rng.uniform(0, 1, (count, 2)) * (1 - shares)
    scale = sizes if format.unit == "pixels" else 1.0
    digits = 0 if format.unit == "pixels" else 6
    first, second = (low * scale).round(digits), ((low + shares) * scale).round(digits)
    if format.corners == "xywh":
        second = second - first
    elif format.corners == "cxcywh":
        first, second = (first + second) / 2, second - first
    return np.concatenate([first, second], axis=1), sizes


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_every_format_gives_the_same_pixels(format: BoxFormat) -> None:
    written = {
        "xywh": [10, 20, 30, 40],
        "xyxy": [10, 20, 40, 60],
        "cxcywh": [25, 40, 30, 40],
    }[format.corners]
    sizes = np.array([[200.0, 100.0]])
    boxes = np.array([written], dtype=float) / (np.tile(sizes, 2) if format.unit == "fractions" else 1)
    np.testing.assert_allclose(format.to_xywh(boxes, sizes), [[10, 20, 30, 40]])
    assert BoxFormat.parse(format.name) == format


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_sets_of_thirty_boxes_and_more_are_recognised(format: BoxFormat) -> None:
    readings = [recognize_format(*random_boxes(format, 30 + 10 * (seed % 10), seed)) for seed in range(300)]
    assert sum(one.format == format and not one.doubt for one in readings) >= 297


@drawn(
    format=st.sampled_from(FORMATS),
    count=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    largest=st.sampled_from([0.06, 0.2, 0.6, 1.0]),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_set_however_small_is_mistaken_in_silence(format: BoxFormat, count: int, seed: int, largest: float) -> None:
    boxes, sizes = random_boxes(format, count, seed, largest / 3, largest)
    reading = recognize_format(boxes, sizes)
    same = np.abs(reading.format.to_xywh(boxes, sizes) - format.to_xywh(boxes, sizes)).max() <= 1
    assert same or reading.doubt


def test_a_few_defective_boxes_do_not_flip_the_convention() -> None:
    boxes, sizes = random_boxes(XYWH, 1000, 0, 0.01, 0.05)
    boxes[:5, :2] = sizes[:5]
    boxes[5] = np.nan
    reading = recognize_format(boxes, sizes)
    assert (reading.format, reading.doubt) == (XYWH, "")
    assert str(reading) == "boxes read as xywh in pixels (994 of 999 fit their image)"


def test_reading_text_has_the_number_of_fitting_boxes() -> None:
    boxes, sizes = random_boxes(XYXY, 200, 1)
    reading = recognize_format(boxes, sizes)
    as_xywh = int(XYWH.fits(boxes, sizes).sum())
    assert str(reading) == f"boxes read as xyxy in pixels (200 of 200 fit their image; as xywh {as_xywh})"


def test_the_convention_is_the_fallback_if_no_format_fits() -> None:
    boxes, sizes = random_boxes(XYWH, 100, 2)
    reading = recognize_format(boxes, sizes / 10)
    assert reading.format == XYWH
    assert reading.doubt == "no format fits well"


def test_a_format_that_a_fifth_of_the_boxes_do_not_fit_is_doubted() -> None:
    boxes, sizes = random_boxes(XYWH, 100, 2)
    boxes[:20, 2:] = sizes[:20] * 3
    assert recognize_format(boxes, sizes).doubt == "no format fits well"
    assert check_format(XYWH, boxes, sizes).doubt


def test_a_unit_box_may_be_a_pixel_or_the_whole_image() -> None:
    reading = recognize_format(np.array([[0.0, 0, 1, 1]]), np.array([[40.0, 30]]))
    assert reading.format == XYWH
    assert reading.doubt == "they might as well be xywh in fractions or xyxy in fractions"


def test_one_box_that_fits_in_one_format_alone_is_no_proof() -> None:
    reading = recognize_format(np.array([[300.0, 200, 480, 300]]), np.array([[500.0, 400]]))
    assert (reading.format, reading.doubt) == (XYXY, "too few boxes to be sure")


def test_boxes_of_the_whole_image_are_the_same_in_two_formats() -> None:
    sizes = np.full((50, 2), 100.0)
    reading = recognize_format(np.concatenate([np.zeros((50, 2)), sizes], axis=1), sizes)
    assert (reading.format, reading.doubt) == (XYWH, "")


def test_images_without_a_size_are_ignored() -> None:
    reading = recognize_format(np.array([[0.0, 0, 5, 5]]), np.array([[0.0, 0]]))
    assert (reading.format, reading.boxes) == (XYWH, 0)
    assert reading.doubt
    assert not recognize_format(np.empty((0, 4)), np.empty((0, 2))).doubt


def test_a_given_format_is_refused_where_most_boxes_do_not_fit_and_another_does() -> None:
    boxes, sizes = random_boxes(XYXY, 100, 3, smallest=0.4)
    assert not check_format(XYXY, boxes, sizes).doubt
    misfits = 100 - int(XYWH.fits(boxes, sizes).sum())
    assert misfits > 50
    with pytest.raises(InputError, match=rf"box_format: xywh is wrong, {misfits} of 100 .*\. Use xyxy: 100"):
        check_format(XYWH, boxes, sizes)


def test_a_given_format_is_doubted_where_half_of_the_boxes_fit_or_none_fits_better() -> None:
    parts = [random_boxes(XYWH, 60, 3), random_boxes(XYXY, 40, 4, smallest=0.4)]
    boxes, sizes = (np.concatenate(both) for both in zip(*parts, strict=True))
    assert 50 <= XYWH.fits(boxes, sizes).sum() < 90
    assert check_format(XYWH, boxes, sizes).doubt
    assert check_format(XYWH, boxes, sizes / 10).doubt


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_boxes_written_as_xywh_pixels_are_contradicted_by_the_format_that_they_are_in(format: BoxFormat) -> None:
    others = [contradicting_format(*random_boxes(format, 40, seed)) for seed in range(50)]
    assert others.count(None if format == XYWH else format) >= 49
    assert set(others) <= {None, format} - {XYWH}


@pytest.mark.parametrize("seed", range(20))
def test_boxes_beyond_the_right_border_are_no_other_format(seed: int) -> None:
    """Read as cxcywh, those fit, and so do nearly all small boxes: but not 20 times more than as xywh."""
    boxes, sizes = random_boxes(XYWH, 300, seed, 0.02, 0.08)
    boxes[:24, 0] = sizes[:24, 0] - boxes[:24, 2] / 2
    assert contradicting_format(boxes, sizes) is None


def test_an_unknown_format_and_one_where_there_is_no_choice() -> None:
    with pytest.raises(InputError, match=r"box_format: 'xyhw' .* one of xywh, xyxy, cxcywh, xywh-fractions"):
        load_data("hub:x", box_format="xyhw")
    with pytest.raises(InputError, match=r"box_format xyxy: .*generated: data"):
        load_data("generated:shapes", box_format="xyxy")
