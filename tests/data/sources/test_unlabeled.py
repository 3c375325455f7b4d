"""Images with neither a label file nor a record, by the policy of the user."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from support.source_writers import WRITERS, Photo

from detr_ft.data.sources.base import DefectiveDataError
from detr_ft.data.sources.load import load_data, load_source_data

CAT = ("cat", (2.0, 3.0, 20.0, 12.0))
# Formats with image files beside their annotations, whose readers know only the images of records.
LISTING = [name for name, writer in WRITERS.items() if not writer.embeds and name != "yolo"]


@pytest.fixture
def spec(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[[str], str]:
    """Writes data of a source: a labeled image, one declared to have no objects, and one of which nothing is known."""

    def make(source: str) -> str:
        writer, folder = WRITERS[source], tmp_path / "data"
        files = [write_image(folder / writer.images / f"{name}.png", seed=seed) for seed, name in enumerate("abc")]
        writer.write(folder, [Photo(files[0], (40, 30), (CAT,)), Photo(files[1], (40, 30), ())])
        return f"{source}:{folder}"

    return make


def names(rows: object) -> list[str]:
    return [Path(row["image"]["path"]).stem for row in rows]  # type: ignore[attr-defined]


@pytest.mark.parametrize("source", LISTING)
def test_an_image_without_a_record_is_left_out_unless_the_option_differs(
    source: str, spec: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    place = spec(source)
    with caplog.at_level(logging.WARNING):
        declared = names(load_data(place)["train"])
    assert "c" not in declared
    assert "1 image files" in caplog.text
    assert names(load_data(place, unlabeled="skip")["train"]) == declared
    data = load_source_data(place, unlabeled="background")
    assert names(data.splits["train"]) == [*declared, "c"]
    assert data.splits["train"][-1]["objects"]["bbox"] == []
    assert data.splits["train"][-1]["width"] == 40
    assert [(one.kind, one.row) for one in data.problems] == [("unlabeled", len(declared))]
    with pytest.raises(DefectiveDataError, match=r"c\.png: has no labels"):
        load_data(place, unlabeled="error")


def test_an_image_of_yolo_without_a_label_file_is_background_unless_the_option_differs(
    spec: Callable[[str], str],
) -> None:
    place = spec("yolo")
    data = load_source_data(place)
    assert names(data.splits["train"]) == ["a", "b", "c"]
    assert [(one.kind, one.row) for one in data.problems] == [("unlabeled", 2)]  # b has an empty label file
    assert load_source_data(place, unlabeled="background").problems == data.problems
    skipped = load_source_data(place, unlabeled="skip")
    assert names(skipped.splits["train"]) == ["a", "b"]
    assert skipped.problems == ()
    with pytest.raises(DefectiveDataError, match=r"c\.png: has no labels"):
        load_data(place, unlabeled="error")


@pytest.mark.parametrize("source", LISTING)
def test_the_folder_of_the_images_can_be_named(
    source: str, spec: Callable[[str], str], tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    place = spec(source)
    expected = [row["objects"]["bbox"] for row in load_data(place)["train"]]
    elsewhere = tmp_path / "far away"
    elsewhere.mkdir()
    for file in sorted((tmp_path / "data" / WRITERS[source].images).glob("*.png")):
        file.rename(elsewhere / file.name)
    rows = load_data(place, images=elsewhere)["train"]
    assert {Path(row["image"]["path"]).parent for row in rows} == {elsewhere}
    assert [row["objects"]["bbox"] for row in rows] == expected
