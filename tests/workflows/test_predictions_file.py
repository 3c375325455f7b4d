from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_ft.data.generated.generate import generate
from detr_ft.errors import InputError
from detr_ft.structures import Detections
from detr_ft.workflows.predictions_file import read_predictions, write_predictions

SPLIT = generate("workshop?train=4&validation=3&edge=64")["validation"]
NAMES = SPLIT.features["objects"]["category"].feature.names


def random_detections(number: int) -> Detections:
    generator = torch.Generator().manual_seed(number)
    corner, size = torch.rand(number, 2, generator=generator) * 30, torch.rand(number, 2, generator=generator) * 20 + 1
    scores = torch.rand(number, generator=generator).sort(descending=True).values
    labels = torch.randint(0, len(NAMES), (number,), generator=generator)
    return Detections(torch.cat([corner, corner + size], 1), scores, labels)


def test_written_predictions_are_read_again(tmp_path: Path) -> None:
    detections = [random_detections(number) for number in (5, 0, 3)]
    write_predictions(tmp_path / "deep/found.json", SPLIT, detections, {})
    rows = json.loads((tmp_path / "deep/found.json").read_text())
    assert set(rows[0]) == {"image_id", "category_id", "bbox", "score", "category"}
    assert rows[0]["category"] == NAMES[rows[0]["category_id"]]
    for one, other in zip(detections, read_predictions(tmp_path / "deep/found.json", SPLIT, {}), strict=True):
        assert torch.equal(one.scores.double(), other.scores)
        assert torch.equal(one.labels, other.labels)
        assert torch.allclose(one.boxes.double(), other.boxes, atol=1e-5)


def test_results_made_elsewhere_come_in_any_order(tmp_path: Path) -> None:
    image = SPLIT["image_id"][1]
    rows = [
        {"image_id": image, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.25},
        {"image_id": image, "category_id": 0, "bbox": [5, 6, 7, 8], "score": 0.75},
    ]
    (tmp_path / "found.json").write_text(json.dumps(rows))
    _, found, _ = read_predictions(tmp_path / "found.json", SPLIT, {})
    assert found.scores.tolist() == [0.75, 0.25]
    assert found.labels.tolist() == [0, 1]
    assert found.boxes.tolist() == [[5, 6, 12, 14], [1, 2, 4, 6]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no json", "not valid JSON"),
        ('{"images": []}', "a list of"),
        ('{"images": [], "annotations": [{"image_id": 0, "category_id": 0, "bbox": [0, 0, 1, 1]}]}', "have no score"),
        ([{"image_id": 0}], "result 1: .* image_id or file_name, .*bbox and score"),
        (
            [{"image_id": 10**9, "category_id": 0, "bbox": [0, 0, 1, 1], "score": 1}],
            "no image with the id 1000000000",
        ),
        ([{"image_id": 10**9, "bbox": [0, 0, 1, 1], "score": 1}], "category_id must be a number or a name, got None"),
        (
            [{"image_id": None, "category_id": 99, "bbox": [0, 0, 1, 1], "score": 1}],
            "category_id .*0 .*99",
        ),
        (
            [{"image_id": [1], "category_id": 0, "bbox": [0, 0, 1, 1], "score": 1}],
            "image_id must be a number or a text",
        ),
        (
            [{"image_id": None, "category": ["yeti"], "bbox": [0, 0, 1, 1], "score": 1}],
            r"number or a name, got \['yeti'\]",
        ),
        ([{"image_id": None, "category": "yeti", "bbox": [0, 0, 1, 1], "score": 1}], "no class yeti"),
        ([{"image_id": None, "category_id": 0, "bbox": [0, 0, 1], "score": 1}], "bbox must be"),
        ([{"image_id": None, "category_id": 0, "bbox": [0, 0, 1, 1], "score": "high"}], "score must be"),
        ([{"image_id": None, "category_id": 0, "bbox": [0, 0, float("nan"), 1], "score": 1}], "bbox must be"),
        ([{"image_id": None, "category_id": 0, "bbox": [0, 0, 10**400, 1], "score": 1}], "bbox must be"),
        ([{"image_id": None, "category_id": 0, "bbox": [0, 0, 1e308, 1], "score": 1}], "bbox must be"),
        ([{"image_id": None, "category_id": 0, "bbox": [9, 9, -3, 1], "score": 1}], "width or height is negative"),
        ([{"image_id": None, "category_id": 0, "bbox": [0, 0, 1, 1], "score": 87.5}], "score must be"),
        ([{"image_id": None, "category_id": 0, "bbox": [0, 0, 1, 1], "score": -1}], "score must be"),
        ([{"image_id": "0", "category_id": 0, "bbox": [0, 0, 1, 1], "score": 1}], "no image with the id '0'; ids are"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_an_invalid_result_is_reported(tmp_path: Path, content: Any, words: str) -> None:
    if isinstance(content, list):
        own = SPLIT["image_id"][0]
        content = json.dumps(
            [row | {"image_id": own if row["image_id"] is None else row["image_id"]} for row in content]
        )
    (tmp_path / "found.json").write_text(content)
    with pytest.raises(InputError, match=words) as raised:
        read_predictions(tmp_path / "found.json", SPLIT, {})
    assert "found.json" in str(raised.value)


def test_each_fault_is_reported_once_and_all_together(tmp_path: Path) -> None:
    rows = [{"image_id": 10**9, "category_id": 0, "bbox": [0, 0, 1, 1], "score": 1}] * 50 + [{"nothing": 1}]
    (tmp_path / "found.json").write_text(json.dumps(rows))
    with pytest.raises(InputError) as raised:
        read_predictions(tmp_path / "found.json", SPLIT, {})
    assert len(raised.value.problems) == 2


def test_the_first_of_many_faults_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    rows = [{"image_id": 10**9 + one, "category_id": 0, "bbox": [0, 0, 1, 1], "score": 1} for one in range(300)]
    (tmp_path / "found.json").write_text(json.dumps(rows))
    with pytest.raises(InputError) as raised:
        read_predictions(tmp_path / "found.json", SPLIT, {})
    assert len(raised.value.problems) == 21
    assert raised.value.problems[-1].endswith("and 280 more")


def test_a_file_that_is_missing_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json: can't be read"):
        read_predictions(tmp_path / "gone.json", SPLIT, {})


def test_the_numbers_of_a_coco_file_are_unchanged(tmp_path: Path) -> None:
    numbers = {10 * (1 + index): name for index, name in enumerate(NAMES)} | {5: "of no object"}
    detections = [random_detections(4), random_detections(0), random_detections(2)]
    write_predictions(tmp_path / "found.json", SPLIT, detections, numbers)
    rows = json.loads((tmp_path / "found.json").read_text())
    assert all(numbers[row["category_id"]] == row["category"] for row in rows)
    assert [row["category_id"] // 10 - 1 for row in rows[:4]] == detections[0].labels.tolist()
    # As another tool writes them: without names, and of a category that no object has.
    rows = [{key: value for key, value in row.items() if key != "category"} for row in rows]
    rows.append(rows[0] | {"category_id": 5})
    (tmp_path / "other.json").write_text(json.dumps(rows))
    again = read_predictions(tmp_path / "other.json", SPLIT, numbers)
    assert [one.labels.tolist() for one in again] == [one.labels.tolist() for one in detections]
    with pytest.raises(InputError, match=r"category_id .* 10"):
        read_predictions(tmp_path / "other.json", SPLIT, {})
