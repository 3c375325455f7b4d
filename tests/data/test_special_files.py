"""Pipes, sockets and devices in the place of files are errors that name them; none is waited for."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from PIL import Image

from detr_ft.data.images import file_size, image_format, open_image
from detr_ft.data.integrity.scan import scan_images
from detr_ft.data.integrity.usable_images import with_true_sizes
from detr_ft.data.pipeline.sample import read_sample
from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.data.sources.load import load_data
from detr_ft.data.sources.parsing import XML_ERRORS, parse_xml, read_text
from detr_ft.errors import InputError
from detr_ft.inference.images import read_image
from detr_ft.utils.daemon_threads import DaemonThreads, result_within
from detr_ft.utils.yaml import read_located
from detr_ft.workflows.predict import predict
from detr_ft.workflows.prediction_rows import PredictionRows

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX files")
SECONDS = 20.0  # a call that waits for the file takes longer


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


SPECIAL = [(make_pipe, "named pipe"), (make_socket, "socket"), (link_to_device, "device")]


def rows_of(path: Path) -> Dataset:
    row = {"image": {"path": str(path), "bytes": None}, "image_id": 3, "width": 8, "height": 8, "objects": detection_objects([], [])}  # fmt: skip
    return Dataset.from_list([row], features=detection_features(["cat"]))


def scan(path: Path) -> None:
    (scanned,) = scan_images(rows_of(path), "scanning")
    assert scanned.trouble == "unreadable"
    raise InputError(scanned.message)


def evaluate(path: Path) -> None:
    with_true_sizes(DatasetDict(validation=rows_of(path)), "validation")


READERS: dict[str, Callable[[Path], Any]] = {
    "image": open_image, "size": file_size, "format": image_format, "sample": lambda path: read_sample(rows_of(path)[0]),
    "inference": read_image, "scan": scan, "evaluation": evaluate, "text": read_text, "recipe": read_located,
    "predictions": PredictionRows.read,
    "coco": lambda path: load_data(f"coco:{path}"), "unnamed": load_data,
    "yolo": lambda path: load_data(f"yolo:{path}"), "csv": lambda path: load_data(f"csv:{path}"),
    "parquet": lambda path: load_data(f"parquet:{path}"), "webdataset": lambda path: load_data(f"webdataset:{path}"),
}  # fmt: skip


def call(reader: Callable[[Path], Any], path: Path) -> Any:
    return result_within(DaemonThreads(1).submit(lambda: reader(path)), SECONDS)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("make", "kind"), SPECIAL, ids=["pipe", "socket", "device"])
def test_a_special_file_is_named_and_not_read(
    tmp_path: Path, make: Callable[[Path], None], kind: str, reader: Callable[[Path], Any]
) -> None:
    path = tmp_path / "special.jpg"
    make(path)
    with pytest.raises(InputError, match=f"special.jpg.*(is )?a {kind}"):
        call(reader, path)


def test_a_pipe_of_xml_is_not_read(tmp_path: Path) -> None:
    make_pipe(tmp_path / "a.xml")
    with pytest.raises(XML_ERRORS, match="named pipe"):
        call(parse_xml, tmp_path / "a.xml")


def test_a_pipe_that_annotations_name_is_not_read(tmp_path: Path) -> None:
    make_pipe(tmp_path / "a.jpg")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg")
    coco = {
        "images": [{"id": index, "file_name": name, "width": 8, "height": 8} for index, name in enumerate(["a.jpg", "b.jpg"])], "annotations": [],
        "categories": [{"id": 1, "name": "cat"}],
    }  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(coco))
    rows = call(lambda path: load_data(f"coco:{path}"), tmp_path / "train.json")["train"]
    scanned = call(lambda path: scan_images(rows, "scanning"), tmp_path)
    assert [image.trouble for image in scanned] == ["unreadable", ""]


def test_a_pipe_among_images_is_a_failure_of_prediction(tiny_checkpoint: Path, tmp_path: Path) -> None:
    make_pipe(tmp_path / "a.jpg")
    outcome = call(lambda path: predict(str(tiny_checkpoint), str(path)), tmp_path / "a.jpg")
    assert [failure.file for failure in outcome.failures] == [tmp_path / "a.jpg"]
