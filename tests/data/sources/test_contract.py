"""The contract of every source, on a data set in its own format. A new source needs a writer in `support.source_writers`."""

from __future__ import annotations

import codecs
import importlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import DatasetDict
from support.source_writers import UNKNOWN_CLASS, WRITERS, Photo

from detr_ft.data.images import ImageError, open_image
from detr_ft.data.integrity.usable_images import with_true_sizes
from detr_ft.data.schema import class_names
from detr_ft.data.sources.base import DefectiveDataError
from detr_ft.data.sources.load import load_data
from detr_ft.data.sources.problems import UNKNOWN_CATEGORY
from detr_ft.data.sources.registry import SOURCES
from detr_ft.errors import InputError

Write = Callable[..., str]
SIZE = (40, 30)

with_image_files = pytest.mark.parametrize("source", [name for name, writer in WRITERS.items() if not writer.embeds])
with_texts = pytest.mark.parametrize("source", [name for name, writer in WRITERS.items() if writer.texts])
every_source = pytest.mark.parametrize("source", list(WRITERS))


def photo(name: str, *objects: tuple[str, tuple[float, float, float, float]], **more: object) -> Photo:
    return replace(Photo(Path(name), SIZE, objects), **more)


CAT, DOG = ("cat", (2.0, 3.0, 20.0, 12.0)), ("dog", (10.0, 6.0, 8.0, 8.0))
PHOTOS = (photo("a.png", CAT, DOG), photo("b.png", ("dog", (0.0, 0.0, 40.0, 30.0))), photo("c.png"))


@pytest.fixture
def write(tmp_path: Path, write_image: Callable[..., Path]) -> Write:
    """Writes photos, whose image files it makes, in the format of a source; returns the specification of the data."""

    def make(source: str, photos: Sequence[Photo] = PHOTOS, size: tuple[int, int] = SIZE, orientation: int = 1) -> str:
        writer = WRITERS[source]
        # Of formats that bring the images along, the files lie elsewhere.
        images = tmp_path / "originals" if writer.embeds else tmp_path / "data" / writer.images
        made = [
            replace(one, file=write_image(images / one.file, size, seed, orientation))
            for seed, one in enumerate(photos)
        ]
        writer.write(tmp_path / "data", made)
        return f"{source}:{tmp_path / 'data'}"

    return make


def described(data: DatasetDict) -> dict[str, tuple[tuple[int, int], list[tuple[str, object]]]]:
    """Return the size and the objects of each image of the train split, by its file name."""
    rows, names = data["train"], class_names(data["train"])
    return {
        Path(row["image"]["path"]).name: (
            (row["width"], row["height"]),
            [
                (names[label], pytest.approx(box))
                for label, box in zip(row["objects"]["category"], row["objects"]["bbox"], strict=True)
            ],
        )
        for row in rows
    }


def expected(photos: Sequence[Photo] = PHOTOS) -> dict[str, tuple[tuple[int, int], list[tuple[str, object]]]]:
    return {one.file.name: (one.size, [(name, list(box)) for name, box in one.objects]) for one in photos}


def annotation_files(folder: Path, source: str) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in WRITERS[source].texts)


def test_every_source_of_files_has_a_writer() -> None:
    assert {source.name for source in SOURCES if source.follows == "PATH"} <= WRITERS.keys()


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_source_has_help_and_defines_its_functions(source: object) -> None:
    module = importlib.import_module(source.module)
    assert source.help
    assert callable(module.read)
    assert source.follows == "NAME" or callable(module.recognizes)


@every_source
def test_images_boxes_and_classes_are_read(source: str, write: Write) -> None:
    data = load_data(write(source))
    assert list(data) == ["train"]
    assert class_names(data["train"]) == ["cat", "dog"]
    assert described(data) == expected()
    for row in data["train"]:
        assert open_image(row["image"]).size == SIZE


@pytest.mark.parametrize("source", [source.name for source in SOURCES if source.follows == "PATH"])
def test_a_bare_path_is_recognized(source: str, write: Write, caplog: pytest.LogCaptureFixture) -> None:
    _, _, path = write(source).partition(":")
    with caplog.at_level(logging.INFO):
        data = load_data(path)
    assert f"{source}:{path}" in caplog.text
    assert described(data) == expected()


@every_source
def test_names_of_files_and_classes_outside_of_ascii(source: str, write: Write) -> None:
    photos = [photo("Straße 5 «ä».png", ("Käse 芝士", (2.0, 3.0, 20.0, 12.0))), photo("b.png", DOG)]
    assert described(load_data(write(source, photos))) == expected(photos)


@with_image_files
def test_a_missing_image_is_in_the_data_or_reported(
    source: str, write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = write(source)
    (tmp_path / "data" / WRITERS[source].images / "b.png").unlink()
    data = load_data(spec)
    found, wanted = described(data), expected()
    missing = found.keys() - {"a.png", "c.png"}
    assert {name: found[name] for name in found.keys() - missing} == {name: wanted[name] for name in ("a.png", "c.png")}
    if not missing:  # the images of YOLO are those of a folder
        assert "b.txt" in caplog.text
        return
    (name,) = missing
    assert name.endswith("b.png")
    if WRITERS[source].sizes:
        assert found[name] == wanted["b.png"]
    else:
        assert [label for label, _ in found[name][1]] == [label for label, _ in wanted["b.png"][1]]
    image = next(row["image"] for row in data["train"] if row["image"]["path"].endswith(name))
    with pytest.raises(ImageError) as caught:
        open_image(image)
    assert caught.value.kind == "missing"
    assert image["path"] in str(caught.value)


@every_source
def test_an_object_of_no_class_of_the_data_is_an_error_at_its_place(source: str, write: Write) -> None:
    photos = [photo("a.png", CAT), photo("b.png", CAT, (UNKNOWN_CLASS, (1.0, 1.0, 9.0, 9.0)))]
    spec = write(source, photos)
    with pytest.raises(DefectiveDataError) as caught:
        load_data(spec)
    problem, remedy = caught.value.problems
    assert re.search(r"(line|row|annotation|image|object|shape|task) '?\d", problem)
    assert "--fix" in remedy
    data = caught.value.data
    (found,) = data.problems
    assert (found.message, found.split, found.row) == (problem, "train", 1)
    categories = [[0], [0]] if found.kind == "unreadable annotation" else [[0], [0, UNKNOWN_CATEGORY]]
    assert [one["category"] for one in data.splits["train"]["objects"]] == categories
    assert described(data.without_rows(data.defective_rows()).splits) == expected(photos[:1])


@pytest.mark.parametrize("source", [name for name, writer in WRITERS.items() if writer.sizes])
def test_boxes_of_another_size_than_the_files_fit_the_files_afterwards(source: str, write: Write) -> None:
    doubled = [
        replace(one, size=(80, 60), objects=[(name, tuple(2 * value for value in box)) for name, box in one.objects])
        for one in PHOTOS
    ]
    rows = with_true_sizes(load_data(write(source, doubled)), "train")
    assert described(DatasetDict(train=rows)) == expected()


@every_source
def test_a_size_that_is_not_stated_is_that_of_the_upright_image(source: str, write: Write) -> None:
    photos = [replace(one, size=(30, 40), stated=False) for one in (photo("a.jpg", CAT, DOG), photo("c.jpg"))]
    assert described(load_data(write(source, photos, size=(40, 30), orientation=6))) == expected(photos)


@with_texts
def test_a_byte_order_mark_is_no_part_of_a_text(source: str, write: Write, tmp_path: Path) -> None:
    spec = write(source)
    for file in annotation_files(tmp_path, source):
        file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    assert described(load_data(spec)) == expected()


@with_texts
def test_a_text_in_another_encoding_is_an_error_that_names_the_file(source: str, write: Write, tmp_path: Path) -> None:
    photos = [photo("a.png", ("Käse", (2.0, 3.0, 20.0, 12.0)))]
    spec = write(source, photos)
    files = [file for file in annotation_files(tmp_path, source) if not file.read_bytes().isascii()]
    assert files
    for file in files:
        file.write_bytes(file.read_text(encoding="utf-8").encode("cp1252"))
    with pytest.raises(InputError) as caught:
        load_data(spec)
    assert all(any(str(file) in problem for problem in caught.value.problems) for file in files)
    assert "UTF-8" in str(caught.value) or "XML" in str(caught.value)


@with_texts
def test_an_empty_file_is_an_error_that_names_its_folder(source: str, write: Write, tmp_path: Path) -> None:
    spec = write(source)
    for file in annotation_files(tmp_path, source):
        before = file.read_bytes()
        file.write_bytes(b"")
        if file.suffix == ".txt":  # of YOLO: an image without objects
            assert described(load_data(spec))[f"{file.stem}.png"][1] == []
        else:
            with pytest.raises(InputError) as caught:
                load_data(spec)
            assert str(file.parent) in caught.value.problems[0]
        file.write_bytes(before)


@pytest.mark.parametrize("source", [name for name, writer in WRITERS.items() if {".json", ".jsonl"} & {*writer.texts}])
@pytest.mark.parametrize("text", ["[" * 100_000, f'{{"images": {"9" * 5000}}}', "{"])
def test_json_that_python_cannot_parse_is_an_error_that_names_the_file(
    source: str, text: str, write: Write, tmp_path: Path
) -> None:
    spec = write(source)
    file = annotation_files(tmp_path, source)[0]
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_data(spec)
    named = [problem for problem in caught.value.problems if str(file) in problem]
    assert named
    # A list is no COCO file, and a mapping no export of Label Studio, whatever follows.
    assert "not valid JSON" in str(caught.value) or "Its JSON files" in named[0]


@pytest.mark.parametrize("source", [source.name for source in SOURCES if source.follows == "PATH"])
def test_an_empty_folder_is_an_error_that_names_it(source: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_data(f"{source}:{tmp_path}")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "source", [source for source in SOURCES if not source.takes_box_format], ids=lambda one: one.name
)
def test_the_format_of_boxes_cannot_be_given_where_the_source_defines_it(source: object, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_data(f"{source.name}:{tmp_path}", box_format="xyxy")
    assert source.name in str(caught.value)
