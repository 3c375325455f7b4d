"""The doctor's page in a real browser: width, colors in light and dark, and no requests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from datasets import DatasetDict

from detr_ft.data.doctor import examine
from detr_ft.data.sources.load import load_data
from detr_ft.report.doctor import render_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a data set with long file names and defects of several kinds."""
    folder = tmp_path_factory.mktemp("report")
    data = load_data("generated:shapes?train=12&validation=6&edge=128")
    train = data["train"].map(_spoilt, with_indices=True, features=data["train"].features)
    spoilt = DatasetDict({"train": train, "validation": data["validation"], "test": data["train"].select([0, 1, 2])})
    (folder / "report.html").write_text(render_report(examine(spoilt), spoilt))
    return (folder / "report.html").as_uri()


def _spoilt(row: dict, index: int) -> dict:
    objects = row["objects"]
    boxes = [[box[0] + (200 if index % 2 else 0), box[1], box[2], box[3] * (index % 3)] for box in objects["bbox"]]
    path = f"a_folder_with_a_long_name/{'frame' * 20}_{index}.png"
    return {"objects": {**objects, "bbox": boxes}, "image": {"path": path, "bytes": row["image"]["bytes"]}}


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark"), (360, "light")])
def test_it_fits_and_fetches_nothing(visit: Callable, report: str, width: int, scheme: str) -> None:
    visited = visit(report, width=width, color_scheme=scheme)
    page = visited.page
    for summary in page.query_selector_all("details:not([open]) > summary"):
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.locator("img").count() >= 12
    assert page.locator("section.kind").count() >= 3
    dark, text = page.evaluate("['backgroundColor', 'color'].map(key => getComputedStyle(document.body)[key])")
    assert (sum(_rgb(dark)) < sum(_rgb(text))) == (scheme == "dark")
    assert visited.errors == []
    assert [url for url in visited.outside if not url.startswith("file:")] == []


def _rgb(colour: str) -> list[int]:
    return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
