"""Files of folders, and the splits that names state."""

from __future__ import annotations

from pathlib import Path

import pytest

from detr_ft.data.sources.listing import (
    file_by_split,
    files_below,
    files_by_split,
    files_in,
    image_files,
    images_below,
    images_in,
    split_folders,
    split_of,
    split_of_folder,
    split_of_path,
)
from detr_ft.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "x.txt", ".hidden.png", "sub/c.png", "sub/deep/.d.png", "sub/d.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    return tmp_path


def names(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_a_folder_is_listed_by_suffix_in_either_case(folder: Path) -> None:
    # A link that leads nowhere is listed: its image is missing.
    assert names(images_in(folder), folder) == ["a.JPG", "b.png", "gone.png"]
    assert names(files_in(folder, {".txt", ".json"}), folder) == ["x.txt"]
    assert files_in(folder / "none", {".txt"}) == []


def test_subfolders_are_listed_too(folder: Path) -> None:
    assert names(images_below(folder), folder) == ["a.JPG", "b.png", "gone.png", "sub/c.png"]
    assert names(files_below(folder, {".json"}), folder) == ["sub/d.json"]


def test_links_copied_as_text_are_followed(folder: Path) -> None:
    (folder / "elsewhere/far").mkdir(parents=True)
    (folder / "elsewhere/far/e.png").touch()
    (folder / "sub/link").write_text("../elsewhere/far\n")
    (folder / "sub/README").write_text("far")
    (folder / "sub/absolute").write_text(str(folder))
    (folder / "sub/binary").write_bytes(b"\xff\x00")
    assert images_below(folder / "sub") == [folder / "elsewhere/far/e.png", folder / "sub/c.png"]
    (folder / "sub/loop").write_text("..")
    assert names(images_below(folder), folder).count("sub/c.png") == 1


def test_the_images_of_arguments_are_listed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    url = "https://host.org/a.png"
    listed = image_files([url, "b.png", ".", folder / "sub", url, "x.txt"])
    # A file that is named outright is listed whatever its suffix, and a link that leads nowhere is a missing image.
    assert listed == [url, Path("b.png"), Path("a.JPG"), Path("gone.png"), Path("sub/c.png"), Path("x.txt")]
    assert image_files([folder / "gone.png"]) == [folder / "gone.png"]


def test_missing_paths_and_folders_without_images_are_reported_together(folder: Path) -> None:
    (folder / "empty/.hidden").mkdir(parents=True)
    (folder / "empty/.hidden/a.png").touch()
    with pytest.raises(InputError) as caught:
        image_files([folder / "lost.png", folder / "b.png", folder / "empty"])
    first, second = caught.value.problems
    assert first.startswith(f"{folder / 'lost.png'}: ")
    assert second.startswith(f"{folder / 'empty'}: ")


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("valid", "validation"),
        ("instances_val2017", "validation"),
        ("Train", "train"),
        ("test-dev", "test"),
        ("latest", None),
        ("eval", "validation"),
        ("labels_evaluation", "validation"),
        ("evaluation_results", None),
        ("predictions-eval", None),
        ("test_results", "test"),
        ("medieval", None),
        ("holdout", "test"),
        ("Hold-out", "test"),
        ("labels_held_out", "test"),
        ("threshold_out", None),
        ("hold", None),
    ],
)
def test_split_names(word: str, split: str | None) -> None:
    assert split_of(word) == split


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", "__MACOSX", "#recycle"])
def test_hidden_folders_and_those_of_tools_are_not_listed(tmp_path: Path, name: str) -> None:
    for folder in (tmp_path / name, tmp_path / "sub" / name):
        folder.mkdir(parents=True)
        (folder / "a.png").touch()
    assert images_below(tmp_path) == []
    assert names(images_below(tmp_path / name), tmp_path) == [f"{name}/a.png"]  # a folder that is named outright


def test_linked_folders_are_listed_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "far/deep").mkdir(parents=True)
    (tmp_path / "far/deep/a.png").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "one").symlink_to(tmp_path / "far")
    (root / "two").symlink_to(tmp_path / "far")
    (tmp_path / "far/back").symlink_to(root)
    assert names(images_below(root), root) == ["one/deep/a.png", "two/deep/a.png"]


@pytest.mark.parametrize(
    ("path", "split"),
    [("val/a.json", "validation"), ("x/train/y/a.png", "train"), ("test/train/a.png", "train"), ("a.png", None)],
)
def test_the_split_of_a_path_is_that_of_its_nearest_folder(path: str, split: str | None) -> None:
    assert split_of_path(Path("val/data") / path, Path("val/data")) == split


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train2017", "train"),
        ("val_images", "validation"),
        ("TestSet", None),
        ("test_set", "test"),
        ("test-drive", None),
    ],
)
def test_the_split_in_the_name_of_a_folder(name: str, split: str | None) -> None:
    assert split_of_folder(Path(name)) == split


def test_only_whole_names_of_folders_are_splits(tmp_path: Path) -> None:
    for name in ("train", "Valid", "test_old", "dev"):
        (tmp_path / name).mkdir()
    (tmp_path / "val").touch()
    assert [(split, child.name) for split, child in split_folders(tmp_path)] == [
        ("validation", "Valid"),
        ("validation", "dev"),
        ("train", "train"),
    ]
    assert split_of_folder(Path("test_old")) is None


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["a.json", "test.json"], {"train": ["a.json"], "test": ["test.json"]}),
        (
            ["a.json", "val/b.json", "test.json"],
            {"train": ["a.json"], "validation": ["val/b.json"], "test": ["test.json"]},
        ),
        (["a.json", "train.json"], {"train": ["a.json", "train.json"]}),
        (["test_1.json", "test_2.json"], {"train": ["test_1.json", "test_2.json"]}),
        (["test.json"], {"train": ["test.json"]}),
    ],
)
def test_files_are_divided_by_one_word_of_validation_or_test(files: list[str], splits: dict[str, list[str]]) -> None:
    root = Path("data")
    divided = files_by_split([root / file for file in files], root)
    assert {split: names(some, root) for split, some in divided.items()} == splits


def test_the_first_files_of_a_split_are_in_the_error() -> None:
    files = [Path(f"{number}.json") for number in range(8)]
    with pytest.raises(
        InputError, match=r"split train: 0\.json, .*, 4\.json and 3 more\. Give one of them, as in coco:0\.json"
    ):
        file_by_split([(None, file) for file in files], Path("data"), "coco")
