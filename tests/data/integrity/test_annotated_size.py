"""Boxes follow the change of their image after annotation, or the image is refused."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from detr_ft.data.images import FileSize, open_image
from detr_ft.data.integrity.annotated_size import (
    SCALED,
    SIZE_ALONE,
    TURNED,
    AnnotatedImage,
    AnnotatedSizes,
    Box,
    Frame,
    Rescaling,
    moved_area,
    unclear_reason,
)

MIDDLE = (40.0, 40.0, 10.0, 10.0)


def image(stated: tuple[int, int], file: tuple[int, int], *boxes: Box, exif: int = 1) -> AnnotatedImage:
    return AnnotatedImage(stated, boxes or (MIDDLE,), FileSize(file, exif))


def rescalings(images: Sequence[AnnotatedImage], drawn_on: Frame | None = None) -> list[Rescaling | None]:
    sizes = AnnotatedSizes.infer(images, drawn_on)
    return [sizes.fit(image) for image in images]


def moved(fit: Rescaling | None, box: Box) -> list[float]:
    assert fit is not None
    return [round(value, 6) for value in fit.move(box)]


@pytest.mark.parametrize("exif", range(2, 9))
@given(x=st.integers(0, 40), y=st.integers(0, 20), w=st.integers(1, 20), h=st.integers(1, 10), edge=st.integers(31, 61))
def test_a_box_on_the_stored_image_is_turned_as_its_pixels_are(
    exif: int, x: int, y: int, w: int, h: int, edge: int
) -> None:
    assume(edge != 60)
    pixels = np.zeros((edge, 60, 3), dtype=np.uint8)
    pixels[y : y + h, x : x + w] = 255
    exif_tags = Image.Exif()
    exif_tags[0x0112] = exif
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", exif=exif_tags)
    upright = np.asarray(open_image(stream.getvalue()))
    # One that shows its turning in its size goes along, for those that don't.
    beside = image((60, 50), (50, 60), exif=6)
    one = AnnotatedImage((60, edge), [(x, y, w, h)], FileSize((upright.shape[1], upright.shape[0]), exif))
    left, top, width, height = map(round, moved(rescalings([beside, one])[1], (x, y, w, h)))
    assert (upright[top : top + height, left : left + width] == 255).all()
    assert (upright == 255).sum() == 3 * width * height


@given(
    width=st.integers(20, 4000),
    height=st.integers(20, 4000),
    factor=st.floats(0.1, 8),
    rounding=st.sampled_from([round, int, np.ceil]),
)
def test_a_resized_image_has_its_boxes_resized_to_the_pixel(
    width: int, height: int, factor: float, rounding: type[int]
) -> None:
    after = (max(1, int(rounding(width * factor))), max(1, int(rounding(height * factor))))
    box = (width * 0.25, height * 0.5, width * 0.5, height * 0.25)
    (fit,) = rescalings([AnnotatedImage((width, height), [box], FileSize(after))])
    assert moved(fit, box) == pytest.approx([after[0] / 4, after[1] / 2, after[0] / 2, after[1] / 4], abs=1e-4)
    assert [fit and fit.how] == [SCALED if after != (width, height) else ""]


def test_a_small_difference_is_scaled_and_another_shape_is_unclear() -> None:
    assert moved(rescalings([image((1000, 750), (1012, 759))])[0], MIDDLE) == [40.48, 40.48, 10.12, 10.12]
    assert rescalings([image((1000, 750), (1013, 750))]) == [None]
    assert rescalings([image((480, 640), (640, 480))]) == [None]
    resized = rescalings([image((2481, 1478), (1000, 600), (1200, 700, 600, 400))])  # as an image of CPPE-5
    assert moved(resized[0], (248.1, 147.8, 248.1, 147.8)) == [100, 60, 100, 60]
    assert rescalings([image((2481, 1478), (1000, 580))]) == [None]
    assert words(image((1000, 750), (1100, 837))) == [SCALED]  # by a tenth: its shape may be off by more than rounding


def test_a_square_that_exif_turns_is_scaled_and_not_turned() -> None:
    assert words(image((300, 300), (600, 600), exif=6)) == [SCALED]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_boxes_do_not_decide_the_frame(broken: float) -> None:
    assert words(image((200, 200), (400, 400), (broken, 1, 2, 3), (300, 10, 50, 50))) == [SIZE_ALONE]


def words(*images: AnnotatedImage) -> list[str | None]:
    return [fit and fit.how for fit in rescalings(images)]


def test_boxes_that_fit_one_frame_only_decide_for_their_group() -> None:
    beyond_stated, quiet = image((200, 200), (400, 400), (300, 10, 50, 50)), image((200, 200), (400, 400))
    assert words(beyond_stated, quiet) == [SIZE_ALONE] * 2
    assert words(quiet) == [SCALED]
    # One of eleven is too few to speak for all, but not to speak against them for itself.
    assert words(beyond_stated, *[quiet] * 10) == [None, *[SCALED] * 10]
    beyond_file = image((200, 200), (100, 100), (150, 10, 20, 20))
    assert words(beyond_file, beyond_stated) == [None] * 2


def test_another_shape_is_clear_only_where_boxes_need_the_file() -> None:
    """Boxes that have no room in the file may be of an image that was stretched, or of one that was cropped."""
    beyond_stated, quiet = image((200, 200), (400, 200), (300, 10, 50, 50)), image((200, 200), (400, 200))
    beyond_file = image((400, 200), (200, 200), (300, 10, 50, 50))
    assert words(beyond_stated, quiet) == [SIZE_ALONE] * 2
    assert words(beyond_file, image((400, 200), (200, 200))) == [None] * 2
    assert words(beyond_stated, beyond_file) == [None] * 2


def test_an_image_that_was_turned_without_a_trace_is_never_scaled() -> None:
    turned = image((480, 640), (640, 480), (100, 500, 50, 50))  # room in the stated size alone
    assert words(turned) == [None]
    assert rescalings([turned], "stated") == [None]
    assert words(image((480, 640), (640, 480), (500, 100, 50, 50))) == [SIZE_ALONE]


def test_a_size_that_is_right_does_not_prove_that_boxes_are_upright() -> None:
    """The size was read by a program that applies EXIF, the boxes were drawn in one that does not."""
    box = (500.0, 20.0, 100.0, 50.0)  # no room in 480 x 640
    as_stored, quiet = image((480, 640), (480, 640), box, exif=6), image((480, 640), (480, 640), exif=6)
    assert words(as_stored, quiet) == [TURNED, TURNED]
    assert moved(rescalings([as_stored])[0], box) == [410, 500, 50, 100]
    upright = image((480, 640), (480, 640), (20, 500, 50, 100), exif=6)
    assert words(upright, quiet) == ["", ""]
    assert words(upright, as_stored) == [None, None]


def test_an_image_turned_and_resized_whose_boxes_are_upright_is_scaled_alone() -> None:
    box = (10.0, 500.0, 60.0, 40.0)  # no room in 600 x 400
    upright = image((600, 400), (400, 600), box, exif=6)
    small = image((600, 400), (200, 300), box, exif=6)
    assert words(upright, small) == [SIZE_ALONE, SCALED]
    assert moved(rescalings([upright, small])[1], box) == [5, 250, 30, 20]


def test_a_mirrored_image_that_was_resized_is_turned_with_the_others() -> None:
    as_stored = image((600, 400), (400, 600), exif=6)
    small = image((600, 400), (300, 200), exif=3)
    assert words(small) == [SCALED]
    assert words(small, as_stored) == [TURNED, TURNED]
    assert moved(rescalings([small, as_stored])[0], (60, 40, 30, 10)) == [255, 175, 15, 5]
    assert words(small, as_stored, image((400, 600), (400, 600), exif=8)) == [None, TURNED, ""]


@pytest.mark.parametrize(("stated", "file"), [((640, 480), (1280, 960)), ((640, 480), (480, 640))])
def test_boxes_may_prove_the_stated_size_wrong(stated: tuple[int, int], file: tuple[int, int]) -> None:
    """Upscaled, or turned by EXIF: but the boxes were drawn on the file as it is."""
    exif = 1 if file[0] > 1000 else 6
    box = (300.0, 550.0, 50.0, 50.0)
    (fit,) = rescalings([image(stated, file, box, exif=exif)])
    assert [fit and (fit.how, fit.move(box))] == [(SIZE_ALONE, box)]
    careless = image(stated, file, (300, 440, 50, 50), exif=exif)  # ten pixels beyond the border show nothing
    assert rescalings([careless])[0] != fit


def test_a_file_that_is_turned_and_resized_is_both() -> None:
    (fit,) = rescalings([image((600, 400), (200, 300), exif=6)])
    assert [fit and fit.how] == [TURNED]
    assert moved(fit, (60, 40, 30, 10)) == [175, 30, 5, 15]  # scaled to 30, 20, 15, 5 of 300 x 200, then turned


def test_mirrored_images_follow_the_turned_ones_and_are_unclear_where_those_differ() -> None:
    mirrored = image((60, 50), (60, 50), exif=2)
    as_stored, upright = image((60, 50), (50, 60), exif=6), image((50, 60), (50, 60), exif=6)
    assert [fit and fit.how for fit in rescalings([mirrored])] == [""]
    assert [fit and fit.how for fit in rescalings([mirrored, upright])] == ["", ""]
    assert [fit and fit.how for fit in rescalings([mirrored, as_stored])] == [TURNED, TURNED]
    assert [fit and fit.how for fit in rescalings([mirrored, as_stored, upright])] == [None, TURNED, ""]


def test_drawn_on_decides_if_boxes_fit_both_frames() -> None:
    stretched = image((400, 200), (200, 200))
    assert [fit and fit.how for fit in rescalings([stretched], "stated") + rescalings([stretched], "file")] == [
        SCALED,
        SIZE_ALONE,
    ]
    contrary = image((400, 200), (200, 200), (300, 10, 50, 50))
    assert rescalings([stretched, contrary], "file")[1] is None
    resized, turned = image((400, 200), (200, 100)), image((60, 50), (50, 60), (5, 5, 9, 9), exif=6)
    assert [fit and fit.how for fit in rescalings([resized, turned], "file")] == [SCALED, TURNED]  # these are clear


def test_the_reason_of_an_unclear_image() -> None:
    assert unclear_reason(image((400, 200), (200, 200))).startswith("stated 400x200, is 200x200, and it is unclear")
    assert unclear_reason(image((60, 50), (60, 50), exif=2)).startswith("EXIF turns or mirrors it to 60x50")


def test_without_boxes_or_a_stated_size_only_the_size_changes() -> None:
    nothing = AnnotatedImage((10, 70), [], FileSize((200, 200)))
    unstated = image((0, 0), (200, 200))
    broken = AnnotatedImage((200, 200), [(float("nan"), 1, 2, 3)], FileSize((100, 100)))
    missing = image((200, 200), (0, 0), (150, 150, 9, 9))
    exif_tags = rescalings([nothing, unstated, broken, missing])
    assert [fit and fit.how for fit in exif_tags] == [SIZE_ALONE, SIZE_ALONE, SCALED, SIZE_ALONE]


def test_areas_change_as_their_boxes_do() -> None:
    assert moved_area(30, (0, 0, 10, 10), (0, 0, 20, 10)) == 60
    assert moved_area(0, (0, 0, 10, 10), (0, 0, 20, 10)) == 200
