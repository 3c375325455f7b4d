"""Streams: rows in the schema, one after the other, with only a buffer in memory."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, List, Value, load_dataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from detr_ft.data.images import ImageError
from detr_ft.data.integrity.usable_images import with_true_sizes
from detr_ft.data.pipeline.sample import read_sample
from detr_ft.data.schema import class_names
from detr_ft.data.sources import stream
from detr_ft.data.sources.load import load_data
from detr_ft.data.sources.stream import open_stream
from detr_ft.errors import InputError

NAMED = List(ClassLabel(names=["ant", "bee"]))


@pytest.fixture
def write(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., Path]:
    """Writes `train.parquet`: rows of one image, with a box each unless others are given."""

    def make(count: int, category: object = NAMED, label: object = 1, boxes: list[object] | None = None) -> Path:
        image = str(write_image(tmp_path / "a.png"))
        features = Features({"image": Image(), "objects": {"bbox": List(List(Value("float64"))), "label": category}})
        boxes = boxes or [[1.0, 2.0, 3.0, 4.0]] * count
        rows = {"image": [image] * count, "objects": [{"bbox": [box], "label": [label]} for box in boxes]}
        (tmp_path / "set").mkdir()
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / "train.parquet", batch_size=10)
        return tmp_path / "set"

    return make


def test_a_stream_has_the_rows_of_the_whole_data_set(write: Callable[..., Path]) -> None:
    folder = write(12)
    whole = load_data(f"parquet:{folder}")["train"]
    rows = open_stream(f"stream:{folder}")["train"]
    assert isinstance(rows, IterableDataset)
    assert class_names(rows) == ["ant", "bee"]
    assert rows.features == whole.features
    for _ in range(2):
        assert list(rows) == list(whole)


@pytest.mark.parametrize("files", [1, 2, 3])
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_divided_over_processes_and_workers_without_repeats_or_gaps(
    tmp_path: Path, write: Callable[..., Path], files: int, processes: int, workers: int
) -> None:
    """By datasets' own split over nodes, for files fewer than processes, as many, and more; 23 rows go into none of them."""
    folder = write(23, boxes=[[float(number), 2.0, 3.0, 4.0] for number in range(23)])
    rows = Dataset.from_parquet(str(folder / "train.parquet"), cache_dir=str(tmp_path / "cache"))
    (folder / "train.parquet").unlink()
    for number in range(files):
        rows.shard(files, number).to_parquet(folder / f"train-{number:05d}-of-{files:05d}.parquet")
    seen = []
    for process in range(processes):
        share = split_dataset_by_node(open_stream(f"stream:{folder}")["train"], process, processes)
        workers_of_it = min(workers, share.num_shards)
        loader = DataLoader(share, batch_size=None, num_workers=workers_of_it, collate_fn=_number_of)
        own = list(loader)
        assert own
        seen += own
    assert sorted(seen) == list(range(23))


def _number_of(row: dict[str, Any]) -> int:
    return int(row["objects"]["bbox"][0][0])


def test_a_saved_folder_is_streamed(tmp_path: Path, write: Callable[..., Path]) -> None:
    whole = load_data(f"parquet:{write(3)}")
    whole.save_to_disk(tmp_path / "saved")
    rows = open_stream("stream:saved", base=tmp_path)["train"]
    assert [row["objects"] for row in rows] == whole["train"]["objects"][:]
    assert next(iter(rows))["image"]["bytes"] == (tmp_path / "a.png").read_bytes()


def test_a_data_set_of_the_hub_whose_features_need_a_row(
    tmp_path: Path, write_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = str(write_image(tmp_path / "a.png"))
    rows = [{"file_name": image, "objects": {"bbox": [[1, 2, 3, 4]], "category": [1]}, "note": "x"}] * 3
    Dataset.from_list(rows).to_json(tmp_path / "rows.jsonl")
    raw = load_dataset("json", data_files={"train": str(tmp_path / "rows.jsonl")}, streaming=True)
    calls = []
    monkeypatch.setattr(stream, "check_reachable", calls.append)
    monkeypatch.setattr(stream, "load_dataset", lambda name, **how: calls.append((name, how)) or raw)
    found = list(open_stream("stream:user/name@v2?classes=ant,bee")["train"])
    assert calls == ["user/name@v2", ("user/name", {"revision": "v2", "streaming": True})]
    assert [row["image_id"] for row in found] == [0, 1, 2]
    assert found[0].keys() == {"image", "image_id", "width", "height", "objects"}
    assert (found[0]["image"], found[0]["objects"]["category"]) == ({"path": image, "bytes": None}, [1])


def test_other_folders_are_refused_with_what_can_be_streamed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Parquet files or a folder of save_to_disk"):
        open_stream(f"stream:{tmp_path}")


@pytest.mark.parametrize(("category", "label"), [(List(Value("string")), "bee"), (List(Value("int64")), 1)])
def test_classes_without_names_must_be_given(write: Callable[..., Path], category: object, label: object) -> None:
    folder = write(2, category, label)
    with pytest.raises(InputError, match=r"label has no class names.*train\.parquet\?classes=cat,dog"):
        open_stream(f"stream:{folder / 'train.parquet'}")
    rows = open_stream(f"stream:{folder}?classes=ant,bee")["train"]
    assert [row["objects"]["category"] for row in rows] == [[1], [1]]
    with pytest.raises(InputError, match=r"row 0: object 0 has the label .* the 1 classes ant"):
        open_stream(f"stream:{folder}?classes=ant")
    with pytest.raises(InputError, match="unknown option 'class'"):
        open_stream(f"stream:{folder}?class=ant")


def test_the_format_is_inferred_from_the_first_rows(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream, "_SAMPLE_ROWS", 30)
    low = np.random.default_rng(0).uniform(0.1, 0.4, (40, 2))
    corners = np.concatenate([low, low + 0.3], axis=1) * [40, 30, 40, 30]
    folder = write(40, boxes=corners.tolist())
    with caplog.at_level(logging.INFO):
        last = list(open_stream(f"stream:{folder}")["train"])[-1]
    assert "first 30 rows: boxes read as xyxy in pixels (30 of 30 fit their image" in caplog.text
    assert last["objects"]["bbox"] == [pytest.approx([*corners[-1, :2], 12, 9])]
    row = next(iter(open_stream(f"stream:{folder}", box_format="xywh")["train"]))
    assert row["objects"]["bbox"] == [pytest.approx(corners[0])]


def turned_by_exif(folder: Path, boxes: list[list[float]], stated: tuple[int, int]) -> Path:
    """Rows of images 100x60 as stored, which EXIF turns to 60x100, with a box each and a stated size."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    rows = []
    for place, box in enumerate(boxes):
        file = folder / f"{place}.png"
        PIL.Image.new("RGB", (100, 60), (place, 0, 0)).save(file, exif=exif)
        objects = {"bbox": [box], "category": ["ant"]}
        rows.append({"image": str(file), "width": stated[0], "height": stated[1], "objects": objects})
    Dataset.from_list(rows).to_parquet(folder / "train.parquet")
    return folder / "train.parquet"


def test_boxes_drawn_on_the_stored_frame_are_turned(tmp_path: Path) -> None:
    """In a stream as in the whole data set, once that is judged."""
    file = turned_by_exif(tmp_path, [[70.0, 10.0, 20.0, 30.0]] * 3, (100, 60))
    rows = list(open_stream(f"stream:{file}?classes=ant")["train"])
    whole = with_true_sizes(load_data(f"parquet:{file}"), "train")
    assert [row["objects"] for row in rows] == [row["objects"] for row in whole]
    assert {(row["width"], row["height"]) for row in rows} == {(60, 100)}
    assert rows[0]["objects"]["bbox"] == [[20.0, 70.0, 30.0, 20.0]]
    assert rows[0]["objects"]["area"] == [600.0]
    assert len(read_sample(rows[0]).boxes) == 1


def test_the_frame_is_inferred_from_the_first_rows_and_a_contradicting_row_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_SAMPLE_ROWS", 2)
    upright, stored = [10.0, 70.0, 30.0, 20.0], [70.0, 10.0, 20.0, 30.0]
    file = turned_by_exif(tmp_path, [upright, upright, stored], (100, 60))
    rows = iter(open_stream(f"stream:{file}?classes=ant")["train"])
    assert [next(rows)["objects"]["bbox"] for _ in range(2)] == [[upright]] * 2
    with pytest.raises(InputError, match=r"row 2: stated 100x60, is 60x100 upright, and it is unclear"):
        next(rows)


@pytest.mark.parametrize("read", [open_stream, load_data])
def test_fractions_are_of_the_upright_image_whatever_size_is_stated(tmp_path: Path, read: Callable[..., Any]) -> None:
    file = turned_by_exif(tmp_path, [[0.5, 0.1, 0.25, 0.5]] * 3, (100, 60))
    source = f"stream:{file}?classes=ant" if read is open_stream else f"parquet:{file}"
    row = next(iter(read(source, box_format="xywh-fractions")["train"]))
    assert (row["width"], row["height"]) == (60, 100)
    assert row["objects"]["bbox"] == [pytest.approx([30, 10, 15, 50])]


def test_an_unreadable_image_is_reported_when_it_is_decoded(tmp_path: Path) -> None:
    file = turned_by_exif(tmp_path, [[70.0, 10.0, 20.0, 30.0]] * 2, (100, 60))
    (tmp_path / "1.png").write_bytes(b"no image")
    rows = list(open_stream(f"stream:{file}?classes=ant")["train"])
    assert (rows[1]["width"], rows[1]["height"]) == (100, 60)
    with pytest.raises(ImageError, match=r"1\.png"):
        read_sample(rows[1])


def test_a_malformed_row_is_reported_when_it_is_read(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_SAMPLE_ROWS", 5)
    boxes = [[1.0, 2.0, 3.0, 4.0]] * 12
    boxes[7] = [1.0, 2.0]
    rows = iter(open_stream(f"stream:{write(12, boxes=boxes)}")["train"])
    assert [next(rows)["image_id"] for _ in range(7)] == list(range(7))
    with pytest.raises(InputError, match="split train, row 7: object 0 must have a bbox"):
        next(rows)


def test_only_a_buffer_is_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    count, size = 300, 100_000
    header = b"P6 200 100 255\n"
    features = Features({"image": Image(), "objects": {"bbox": List(List(Value("float64"))), "label": NAMED}})
    images = [{"bytes": header + rng.bytes(size), "path": None} for _ in range(count)]
    objects = [{"bbox": [[1.0, 2.0, 3.0, 4.0]], "label": [0]}] * count
    whole = Dataset.from_dict({"image": images, "objects": objects}, features=features)
    whole.to_parquet(tmp_path / "train.parquet", batch_size=4)
    del images, whole
    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        seen, peak = 0, 0
        for row in open_stream(f"stream:{tmp_path / 'train.parquet'}")["train"]:
            seen += len(row["image"]["bytes"])
            peak = max(peak, pa.total_allocated_bytes() - arrow)
        python = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen > count * size
    assert peak + python < count * size / 4


def test_load_data_refuses_a_stream() -> None:
    with pytest.raises(InputError, match=r"stream:user/name: .*open_stream.*hub:user/name"):
        load_data("stream:user/name")
