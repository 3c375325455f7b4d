"""The page of an evaluation in a real browser: width, colors, switches, tables and pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from report.test_page import shot, summary

from detr_ft.report.page import render_page
from detr_ft.report.pictures import Outline

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("report") / "report.html"
    photo = shot()
    at_the_edge = Outline((50.0, 5.0, 63.0, 30.0), "a class with quite a long name", "#ff0000", 0.5)
    shots = [replace(photo, detections=[*photo.detections, at_the_edge])] * 4
    file.write_text(
        render_page(
            summary(
                title="a run with " + "a long name " * 8,
                verdict="On coco:" + "a_long_path/" * 9 + " it finds all.",
                photos=shots,
            )
        )
    )
    return file.as_uri()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark"), (390, "light")])
def test_it_fits_and_fetches_nothing(visit: Callable, report: str, width: int, scheme: str) -> None:
    visited = visit(report, width=width, color_scheme=scheme)
    page = visited.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    background, text = page.evaluate("['backgroundColor', 'color'].map(key => getComputedStyle(document.body)[key])")
    assert (_light(background) < _light(text)) == (scheme == "dark")
    assert visited.errors == []
    assert [url for url in visited.outside if not url.startswith("file:")] == []


def test_a_click_on_a_column_sorts(visit: Callable, report: str) -> None:
    page = visit(report).page
    table = page.locator("table.sortable")
    column = lambda: [float(text) for text in table.locator("tbody tr td:nth-of-type(1)").all_inner_texts()]  # noqa: E731
    objects = table.get_by_role("button", name="Objects")
    objects.click()
    assert column() == sorted(column(), reverse=True)
    assert objects.locator("..").get_attribute("aria-sort") == "descending"
    objects.focus()
    page.keyboard.press("Enter")
    assert column() == sorted(column())
    table.get_by_role("button", name="Class").click()
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names, reverse=True)


def test_outlines_can_be_switched(visit: Callable, report: str) -> None:
    page = visit(report).page
    for kind, other in (("objects", "detections"), ("detections", "objects")):
        page.get_by_label(kind).uncheck()
        assert not page.locator(f".photos .{kind}").first.is_visible()
        assert page.locator(f".photos .{other} rect").first.is_visible()
        page.get_by_label(kind).check()


def test_a_picture_opens_large_and_closes(visit: Callable, report: str) -> None:
    page = visit(report).page
    small = page.locator(".photos .frame").first.bounding_box()
    page.get_by_role("button", name="Enlarge image 7").first.click()
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    assert "image 7" in dialog.inner_text()
    large = dialog.locator(".frame").bounding_box()
    assert large["width"] > 1.5 * small["width"]
    assert (
        abs(large["width"] / large["height"] - 64 / 48) < 0.05
    )  # as the picture, so that outlines stay where they belong
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    page.get_by_role("button", name="Enlarge image 7").first.click()
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


def _light(colour: str) -> int:
    return sum(int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")[:3])
