"""Manifests as documented in 2024 for Amazon SageMaker Ground Truth, Google Vertex AI and Azure Machine Learning (v2)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detr_ft.data.schema import class_names
from detr_ft.data.sources.base import DefectiveDataError
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.errors import InputError

Write = Callable[..., Path]
Row = dict[str, Any]


def sagemaker(
    name: str, *annotations: object, job: str = "bounding-box", date: str = "2018-10-18T22:18:13.527256"
) -> Row:
    return {
        "source-ref": f"s3://bucket/photos/{name}",
        job: {"image_size": [{"width": 40, "height": 30, "depth": 3}], "annotations": list(annotations)},
        f"{job}-metadata": {
            "objects": [{"confidence": 0.8} for _ in annotations],
            "class-map": {"0": "dog", "5": "Käse"},
            "type": "groundtruth/object-detection",
            "human-annotated": "yes",
            "creation-date": date,
            "job-name": "identify-dogs-and-toys",
        },
    }


def pixels(class_id: Any = 0, left: Any = 1, top: Any = 2, width: Any = 8, height: Any = 10) -> Row:
    return {"class_id": class_id, "width": width, "top": top, "height": height, "left": left}


def vertex(name: str, *annotations: object, use: str = "") -> Row:
    resource = {"aiplatform.googleapis.com/ml_use": use} if use else {}
    return {
        "imageGcsUri": f"gs://bucket/photos/{name}",
        "boundingBoxAnnotations": list(annotations),
        "dataItemResourceLabels": resource,
    }


def fractions(name: Any = "dog", number: type = str, **changes: Any) -> Row:
    corners = {"xMin": 0.25, "yMin": 0.1, "xMax": 0.75, "yMax": 0.5}
    return {
        "displayName": name,
        **{key: number(value) for key, value in corners.items()},
        "annotationResourceLabels": {"aiplatform.googleapis.com/annotation_set_name": "x"},
        **changes,
    }


def azure(name: str, *labels: object, **details: object) -> Row:
    address = f"azureml://subscriptions/1-2/resourcegroups/g/workspaces/w/datastores/d/paths/photos/{name}"
    return {"image_url": address, "image_details": {"format": "jpg", **details}, "label": list(labels)}


def label(name: Any = "dog", crowd: Any = 0, **changes: Any) -> Row:
    corners = {"topX": 0.25, "topY": 0.1, "bottomX": 0.75, "bottomY": 0.5}
    return {"label": name, **corners, "isCrowd": crowd, **changes}


def write(file: Path, *rows: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def images(tmp_path: Path, write_image: Write) -> Path:
    for seed, name in enumerate(("Straße 1.jpg", "b.jpg", "c.jpg")):
        write_image(tmp_path / "photos" / name, seed=seed)
    return tmp_path


def test_ground_truth(images: Path) -> None:
    polygon = {"class_id": "5", "vertices": [{"x": 1, "y": 2}, {"x": 9, "y": 2}, {"x": 4, "y": 12}]}
    rows = [sagemaker("Straße 1.jpg", pixels(), polygon), sagemaker("b.jpg")]
    file = write(images / "output.manifest", *rows)
    for spec in (str(images), str(file), f"manifest:{images}"):
        data = load_data(spec)["train"]
        assert class_names(data) == ["Käse", "dog"]
        assert data[0]["image"]["path"] == str(images / "photos" / "Straße 1.jpg")
        assert data[0]["objects"]["bbox"] == [[1, 2, 8, 10], [1, 2, 8, 10]]
        assert data[0]["objects"]["category"] == [1, 0]
        assert data[1]["objects"]["bbox"] == []


def test_the_newest_job_of_ground_truth_counts_and_failed_lines_are_left_out(
    images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adjusted = sagemaker("b.jpg", pixels(5), job="adjusted", date="2020-01-01T00:00:00") | sagemaker("b.jpg", pixels())
    failed = {
        "source-ref": "s3://bucket/photos/c.jpg",
        "bounding-box-metadata": {"failure-reason": "not annotated", "type": "groundtruth/object-detection"},
    }
    write(images / "manifests" / "output" / "output.manifest", adjusted, failed)
    write(images / "manifests" / "intermediate" / "1" / "x.manifest", sagemaker("c.jpg", pixels()))
    rows = load_data(str(images / "manifests"), images=images / "photos")["train"]
    assert len(rows) == 1
    assert class_names(rows) == ["Käse"]
    assert "1 images have no annotations and are left out" in caplog.text


@pytest.mark.parametrize("number", [str, float])
def test_vertex_ai(images: Path, number: type, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        vertex("Straße 1.jpg", fractions("dog", number), fractions("Käse", number), use="training"),
        vertex("b.jpg", fractions("dog", number), use="validation"),
        vertex("c.jpg", use="test"),
    ]
    write(images / "import.jsonl", *rows)
    with caplog.at_level(logging.INFO):
        data = load_data(str(images))
    assert "recognized as manifest:" in caplog.text
    assert "split by ml_use" in caplog.text
    assert {split: len(some) for split, some in data.items()} == {"train": 1, "validation": 1, "test": 1}
    assert data["train"][0]["objects"]["bbox"] == [pytest.approx([10, 3, 20, 12])] * 2
    assert data["test"][0]["objects"]["bbox"] == []


def test_azure_machine_learning_with_a_file_for_each_split(images: Path) -> None:
    polygon = {
        "label": "dog",
        "isCrowd": "false",
        "polygon": [[0.25, 0.1, 0.5, 0.1, 0.5, 0.3], [0.6, 0.3, 0.75, 0.3, 0.7, 0.5]],
    }
    write(
        images / "train_annotations.jsonl",
        azure("Straße 1.jpg", label(), label("Käse", 1), width="40px", height="30px"),
    )
    write(images / "validation_annotations.jsonl", azure("b.jpg", polygon, width=40, height=30), azure("c.jpg"))
    data = load_data(str(images))
    assert {split: len(some) for split, some in data.items()} == {"train": 1, "validation": 2}
    objects = data["train"][0]["objects"]
    assert objects["bbox"] == [pytest.approx([10, 3, 20, 12])] * 2
    assert objects["iscrowd"] == [False, True]
    assert data["validation"][0]["objects"]["bbox"] == [pytest.approx([10, 3, 20, 12])]
    assert (data["validation"][1]["width"], data["validation"][1]["height"]) == (40, 30)


def test_unreadable_objects_are_problems_of_their_image(images: Path) -> None:
    rows = [
        sagemaker(
            "Straße 1.jpg", pixels(left="x"), pixels(7), 3, pixels(None), {"class_id": 0, "vertices": [{"x": 1}]}
        ),
        vertex("b.jpg", fractions(None), fractions(xMin=None), {}),
        azure("c.jpg", label(bottomX="wide"), label(" "), {"label": "dog", "polygon": [[0, 1]]}),
        sagemaker("d.jpg", pixels()),
    ]
    file = write(images / "a.jsonl", *rows)
    with pytest.raises(DefectiveDataError) as caught:
        load_data(f"manifest:{file}")
    problems = caught.value.data.problems
    assert [(problem.row, problem.message.partition(": ")[0]) for problem in problems if problem.kind == "unknown class"] == [
        (0, f"{file}, line 1, object 1"), (0, f"{file}, line 1, object 3"),
    ]  # fmt: skip
    counts = [len(objects["bbox"]) for objects in caught.value.data.splits["train"]["objects"]]
    assert counts == [2, 0, 0, 1]
    unreadable = [problem.message.partition(": ")[0] for problem in problems if problem.kind == "unreadable annotation"]
    assert list(dict.fromkeys(unreadable)) == [
        *(f"{file}, line 1, object {number}" for number in (0, 2, 4)),
        *(f"{file}, line {line}, object {number}" for line in (2, 3) for number in range(3)),
    ]


def test_lines_that_are_no_objects_are_reported(images: Path) -> None:
    other = {"image_url": "azureml://x/c.jpg", "label": "can"}  # image classification
    file = write(images / "a.jsonl", sagemaker("b.jpg", pixels()), "{", "[1]", {"a": 1}, other)
    problems = load_source_data(f"manifest:{file}").problems
    assert [(problem.message.partition(": ")[0], problem.row) for problem in problems] == [
        (f"{file}, line 2", None), (f"{file}, line 3", None), (f"{file}, line 4", None), (f"{file}, line 5", 1),
    ]  # fmt: skip
    assert all(problem.refused for problem in problems)


def test_missing_images(images: Path) -> None:
    write(images / "output.manifest", sagemaker("b.jpg", pixels()), sagemaker("gone.jpg", pixels()))
    rows = load_data(str(images))["train"]
    assert rows[1]["image"]["path"].endswith("gone.jpg")
    (images / "empty").mkdir()
    with pytest.raises(InputError, match="none of its 2 images is below"):
        load_data(str(images), images=images / "empty")


def test_files_that_are_no_manifest(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = {"file_name": "photos/b.jpg", "objects": {"bbox": [[1, 2, 8, 10]], "category": ["dog"]}}
    file = write(images / "metadata.jsonl", row)
    with caplog.at_level(logging.INFO):
        assert len(load_data(str(images))["train"]) == 1
    assert "recognized as folder:" in caplog.text
    with pytest.raises(InputError, match="no manifest of SageMaker"):
        load_data(f"manifest:{images}")
    with pytest.raises(InputError, match="line 1: must have one of the keys source-ref, imageGcsUri, image_url"):
        load_data(f"manifest:{file}")
    file.write_text("\n")
    with pytest.raises(InputError, match="not a manifest"):
        load_data(f"manifest:{file}")
