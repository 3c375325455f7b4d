"""Images of predictions and rows of a split meet by path, name, stem or id."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from datasets import Dataset

from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.workflows.image_matching import SplitImages, as_number, names_from_common_folder, plain_name


def split_of(paths: Sequence[str], ids: Sequence[int] | None = None) -> Dataset:
    columns = {
        "image": [{"path": path or None, "bytes": None if path else b"x"} for path in paths],
        "image_id": list(ids or range(len(paths))),
        "width": [10] * len(paths),
        "height": [10] * len(paths),
        "objects": [detection_objects([], [])] * len(paths),
    }
    return Dataset.from_dict(columns, features=detection_features(["cat"]))


TREE = ("/data/cam1/0.jpg", "/data/cam2/0.jpg", "/data/cam2/1.png", "/data/2.jpg")


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["/data/cam1/0.jpg", "/data/cam2/0.jpg"], [0, 1]),
        (["photos/cam1/0.jpg", "cam2/0.jpg"], [0, 1]),  # folders from the last
        (["cam2\\1.png", "./2.jpg"], [2, 3]),
        (["elsewhere/1.png"], [2]),  # by name
        (["1.jpg", "2.tiff", "cam1/0"], [2, 3, 0]),  # by stem, with the folder
        (["elsewhere/1.jpg"], [2]),
        (["9.jpg", "1.5"], [None, None]),
        (["other/2.jpg", "data/2.jpg"], [None, 3]),  # the better match takes the image
        (["./cam1/0.jpg", "cam1/0.jpg"], [0, 0]),  # one name in two spellings
    ],
)
def test_names_are_matched(names: list[str], rows: list[int | None]) -> None:
    matches = SplitImages(split_of(TREE)).match_names(names)
    assert matches.ambiguous == []
    assert [matches.rows.get(name) for name in names] == rows


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["0.jpg"], ["/data/cam1/0.jpg", "/data/cam2/0.jpg"]),
        (["x/0.png"], ["/data/cam1/0.jpg", "/data/cam2/0.jpg"]),
        (["a/2.jpg", "b/2.jpg"], ["a/2.jpg", "b/2.jpg"]),
    ],
)
def test_ambiguous_names_are_reported_with_both(names: list[str], named: list[str]) -> None:
    (message,) = SplitImages(split_of(TREE)).match_names(names).ambiguous
    assert all(name in message for name in named)


def test_a_name_is_not_ambiguous_if_the_others_have_better_matches() -> None:
    names = ["cam1/0.jpg", "0.jpg"]
    matches = SplitImages(split_of(TREE)).match_names(names)
    assert (matches.rows, matches.ambiguous) == ({"cam1/0.jpg": 0, "0.jpg": 1}, [])


def test_a_relative_path_is_one_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = SplitImages(split_of([str(tmp_path / "a/0.jpg"), str(tmp_path / "0.jpg")]))
    monkeypatch.chdir(tmp_path)
    names = ["0.jpg", str(tmp_path / "0.jpg"), "a/0.jpg"]
    assert images.match_names(names).rows == {names[0]: 1, names[1]: 1, names[2]: 0}


def test_names_are_compared_in_the_composed_form() -> None:
    composed = "/data/größe.jpg"
    decomposed = unicodedata.normalize("NFD", "größe.jpg")
    assert decomposed != "größe.jpg"
    assert SplitImages(split_of([composed])).match_names([decomposed]).rows == {decomposed: 0}
    assert SplitImages(split_of([f"/data/{decomposed}"])).match_names(["größe"]).rows == {"größe": 0}


def test_ids_are_numbers_also_as_text() -> None:
    images = SplitImages(split_of(["/a.jpg", "/b.jpg", "/c.jpg"], ids=[7, 0, 12]))
    assert images.match_ids(["7", 12, "0", 5, "x"]).rows == {"7": 0, 12: 2, "0": 1}
    assert [as_number(value) for value in (3, "3", "003", 3.0, 3.5, True, "three", None, "²")] == [
        3, 3, 3, 3, None, None, None, None, None,
    ]  # fmt: skip


def test_ids_are_names_and_numbers_in_names() -> None:
    images = SplitImages(split_of(["/000010.jpg", "/000002.jpg", "/b.jpg"]))
    assert images.match_stems([10, "2", "b", 3]).rows == {10: 0, "2": 1, "b": 2}
    assert images.match_stems(["000002", 2]).rows == {"000002": 1}


def test_images_without_files_have_ids_alone() -> None:
    images = SplitImages(split_of(["", ""], ids=[3, 4]))
    assert not images.have_names
    assert images.match_ids([4]).rows == {4: 1}
    assert images.match_names(["x"]).rows == {}


def test_names_of_a_split_identify_its_rows() -> None:
    for paths in (TREE, ("/x/a/0.jpg", "/x/0.jpg"), ("/only.jpg",), ("a.jpg", "b/a.jpg")):
        names = names_from_common_folder(paths)
        assert all(not name.startswith("/") for name in names)
        assert SplitImages(split_of(paths)).match_names(names).rows == {name: row for row, name in enumerate(names)}
    assert names_from_common_folder(["/a/b.jpg", "c.jpg"]) == ["/a/b.jpg", "c.jpg"]
    assert names_from_common_folder([]) == []


def test_plain_names() -> None:
    assert plain_name(" a\\b/../c.jpg ") == "a/c.jpg"
    assert plain_name("https://x.org/a//b.jpg") == "https://x.org/a//b.jpg"
    assert plain_name("") == ""
