"""Images by the names that annotations give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from detr_ft.data.sources.image_finder import (
    FolderIndex,
    ImageFinder,
    NameIndex,
    candidate_paths,
    first_file,
    fullest_folder,
    image_root,
    plain_path,
)
from detr_ft.data.sources.listing import files_below


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def find(finder: ImageFinder, name: str, near: Path | None = None) -> Path:
    problems: list[str] = []
    path = finder.find(name, "file", problems, near)
    assert problems == []
    return path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.png", "a.png"),
        ("./a.png", "a.png"),
        ("day\\a.png", "day/a.png"),
        ("C:\\me\\a.png", "C:/me/a.png"),
        ("https://host/x/a%20b.png?width=9#top", "x/a b.png"),
        ("", ""),
        (".", ""),
        ("..", ""),
        ("https://host/", ""),
    ],
)
def test_a_name_becomes_a_path_with_slashes(name: str, path: str) -> None:
    assert plain_path(name) == path


def test_the_name_as_written_goes_before_the_folders_that_are_most_alike(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "day/a.png", "night/2/a.png", "night/3/b.png")
    finder = ImageFinder(tmp_path)
    assert find(finder, "a.png") == tmp_path / "a.png"
    assert find(finder, "day/a.png") == tmp_path / "day/a.png"
    assert find(finder, "/home/me/night/2/a.png") == tmp_path / "night/2/a.png"
    assert find(finder, "../b.png", near=tmp_path / "x" / "y") == tmp_path / "night/3/b.png"
    assert find(finder, "../night/3/b.png", near=tmp_path / "x") == tmp_path / "night/3/b.png"
    assert list(finder.all_missing(tmp_path)) == []


def test_a_name_of_several_files_is_a_problem(tmp_path: Path) -> None:
    make(tmp_path, "x/a.png", "y/a.png")
    problems: list[str] = []
    assert ImageFinder(tmp_path).find("a.png", "labels.json: image 1", problems) == tmp_path / "x/a.png"
    assert len(problems) == 1
    assert problems[0].startswith("labels.json: image 1: ")
    assert str(tmp_path / "y/a.png") in problems[0]


def test_a_file_that_several_links_lead_to_is_one(tmp_path: Path) -> None:
    make(tmp_path, "x/a.png")
    (tmp_path / "y").symlink_to("x", target_is_directory=True)
    (tmp_path / "z").mkdir()
    (tmp_path / "z/a.png").symlink_to("../x/a.png")
    assert find(ImageFinder(tmp_path), "a.png") == tmp_path / "x/a.png"


def test_folders_go_before_the_search_the_first_one_first(tmp_path: Path) -> None:
    make(tmp_path, "one/a.png", "two/a.png", "two/b.png", "two/c.jpg", "deep/down/d.png")
    finder = ImageFinder(tmp_path, [tmp_path / "one", tmp_path / "two"])
    assert find(finder, "a.png") == tmp_path / "one/a.png"
    assert find(finder, "elsewhere/b.png") == tmp_path / "two/b.png"
    assert find(finder, "c") == tmp_path / "two/c.jpg"
    assert find(finder, "d.png") == tmp_path / "deep/down/d.png"


def test_an_image_of_another_folder_is_no_replacement(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "cam1/0.jpg", "cam1/1.jpg", "cam2/0.jpg", "1.jpg")
    for folders in ([], [tmp_path, tmp_path / "cam1"]):
        finder = ImageFinder(tmp_path, folders)
        assert finder.locate("cam2/1.jpg", "file", []) is None
        assert finder.locate("C:/me/cam2/1.jpg", "file", []) is None
        assert finder.locate("C:/me/cam2/0.jpg", "file", []) == tmp_path / "cam2/0.jpg"
    make(tmp_path / "moved", "photos/2.jpg")
    finder = ImageFinder(tmp_path / "moved")
    assert finder.locate("cam3/2.jpg", "file", []) == tmp_path / "moved/photos/2.jpg"
    with caplog.at_level("INFO"):
        finder.log_substitutes(tmp_path)
    assert "1 images are found in another folder than stated" in caplog.text


def test_a_missing_image_is_where_it_should_be_or_beside_its_name_in_another_case(tmp_path: Path) -> None:
    make(tmp_path, "one/x.png", "two/b.png", "two/b.Png")
    finder = ImageFinder(tmp_path, [tmp_path / "one", tmp_path / "two"])
    assert find(finder, "sub/a.png") == tmp_path / "one/sub/a.png"
    assert find(finder, "B.PNG") == tmp_path / "two/B.PNG"
    (problem,) = finder.all_missing(tmp_path / "labels.csv")
    assert problem.startswith(f"{tmp_path / 'labels.csv'}: ")
    assert "sub/a.png" in problem


def test_names_in_another_case_are_equal_if_one_file_of_a_folder_has_them(tmp_path: Path) -> None:
    make(tmp_path, "one/a.jpg", "two/A.Jpg", "two/x.jpg", "three/a.jpg", "three/a.JpG", "Größe.png", "a.png")
    index = NameIndex(files_below(tmp_path, {".jpg", ".png"}))
    assert index.get("A.JPG") == [tmp_path / "one/a.jpg", tmp_path / "two/A.Jpg"]
    assert index.get("a.jpg") == [tmp_path / "one/a.jpg", tmp_path / "three/a.jpg"]  # as written
    assert index.get("gr%C3%B6SSE.PNG") == [tmp_path / "Größe.png"]
    assert index.get("X.png") == []  # the stem, and the case too


def test_the_search_leaves_out_folders_of_other_splits(tmp_path: Path) -> None:
    make(tmp_path, "val/a.png", "train/deep/b.png")
    finder = ImageFinder(tmp_path, split="train")
    assert finder.locate("a.png", "file", []) is None
    assert finder.locate("b.png", "file", []) == tmp_path / "train/deep/b.png"


def test_find_in_returns_the_first_name_in_any_folder(tmp_path: Path) -> None:
    make(tmp_path, "one/b.png", "two/a.jpg", "two/b.jpg", "two/b.jpg.png")
    finder, folders = ImageFinder(tmp_path), [tmp_path / "one", tmp_path / "two", tmp_path / "none"]
    assert finder.find_in(["a", "b"], folders) == tmp_path / "two/a.jpg"
    assert finder.find_in(["x.png", "b"], folders) == tmp_path / "one/b.png"
    assert finder.find_in(["b.jpg"], folders) == tmp_path / "two/b.jpg"  # and not the file of this stem
    assert finder.find_in(["x"], folders) is None
    assert [finder.has_images(folder) for folder in folders] == [True, True, False]


def test_a_folder_is_listed_once(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    index = FolderIndex({".txt"})
    assert index.names(tmp_path).files() == [tmp_path / "a.txt"]
    make(tmp_path, "b.txt")
    assert index.get(tmp_path, "b.txt") is None


def test_the_fullest_folder_has_most_of_a_sample(tmp_path: Path) -> None:
    make(tmp_path, *(f"one/{i}.png" for i in range(4)), *(f"two/{i}.png" for i in range(9)))
    names = [f"{i}.png" for i in range(10)]
    assert fullest_folder(names, [tmp_path / "one", tmp_path / "two"]) == (tmp_path / "two", 0.9)
    assert fullest_folder([], [tmp_path / "one", tmp_path / "two"]) == (tmp_path / "one", 0.0)


def test_paths_of_another_machine_are_tried_by_their_ends(tmp_path: Path) -> None:
    candidates = [path.as_posix() for path in candidate_paths("D:\\set\\..\\a.png", [Path("x"), Path("y")])]
    assert candidates[2:] == ["x/set/a.png", "y/set/a.png", "x/a.png", "y/a.png"]
    assert [path.as_posix() for path in candidate_paths("D:set\\a.png", [Path("x")])][1:] == ["x/set/a.png", "x/a.png"]
    make(tmp_path, "images/a.png")
    assert first_file(candidate_paths("/data/images/a.png", [tmp_path])) == tmp_path / "images/a.png"
    assert first_file([tmp_path / ("n" * 4000), tmp_path]) is None


@pytest.mark.parametrize(("file", "root"), [("annotations/a.json", "."), ("Labels/a.csv", "."), ("day/a.json", "day")])
def test_the_images_of_annotations_are_below_their_folder_or_beside_it(file: str, root: str) -> None:
    assert image_root(Path("data") / file) == Path("data") / root
