from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.errors import InputError
from detr_ft.evaluation.coco import LIMITS, coco_metrics, match_split, precision_recall
from detr_ft.evaluation.detection_matching import AREAS
from detr_ft.evaluation.evaluate_metric import CocoMeanAveragePrecision
from detr_ft.structures import Detections

METRICS = [
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"),
]
NAMES = ["cat", "unused", "dog", "bird", "only found"]
SHARED = Path(os.environ.get("DETR_FT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def split_of(names: list[str], ids: list[int], objects: list[dict[str, list[Any]]]) -> Dataset:
    rows = {
        "image": [{"path": None, "bytes": b""}] * len(ids),
        "image_id": ids,
        "width": [640] * len(ids),
        "height": [640] * len(ids),
        "objects": objects,
    }
    return Dataset.from_dict(rows, features=detection_features(names))


def random_set(seed: int) -> tuple[Dataset, list[Detections]]:
    """Crowds, images without objects, images without detections, unused classes, more than 100 detections, ties."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(1000)[: rng.integers(1, 7)].tolist()
    objects, detections = [], []
    for _ in ids:
        number = int(rng.integers(0, 9)) * int(rng.integers(0, 2))
        corner, size = rng.integers(0, 400, (number, 2)), rng.integers(4, 220, (number, 2))
        boxes = np.concatenate([corner, size], axis=1).astype(float)
        labels = rng.choice([0, 2, 3], number)
        objects.append(
            {
                "bbox": boxes.tolist(),
                "category": labels.tolist(),
                "area": (size.prod(axis=1) * rng.choice([1.0, 0.6], number)).tolist(),
                "iscrowd": (rng.random(number) < 0.2).tolist(),
            }
        )
        many = int(rng.choice([0, 8, 150]))
        pick = rng.integers(0, number, many) if number else np.zeros(0, dtype=int)
        found = xywh_to_xyxy(torch.from_numpy(boxes[pick] + rng.normal(0, 6, (len(pick), 4))))
        right = torch.from_numpy(np.where(rng.random(len(pick)) < 0.8, labels[pick], rng.choice([0, 2, 4], len(pick))))
        detections.append(Detections(found, torch.from_numpy(rng.integers(0, 40, len(pick)) / 40), right.long()))
    return split_of(NAMES, ids, objects), detections


def pycocotools(truth: Dataset, detections: list[Detections]) -> tuple[list[float], COCOeval]:
    """The reference, given plain COCO dictionaries."""
    objects, results = [], []
    for row, found in zip(truth, detections, strict=True):
        inside = row["objects"]
        columns = zip(inside["bbox"], inside["category"], inside["area"], inside["iscrowd"], strict=True)
        for box, label, area, crowd in columns:
            one = {"image_id": row["image_id"], "category_id": label, "bbox": box, "area": area, "iscrowd": int(crowd)}
            objects.append(one | {"id": len(objects) + 1})
        for (x0, y0, x1, y1), score, label in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
        ):
            box = [x0, y0, x1 - x0, y1 - y0]
            results.append({"image_id": row["image_id"], "category_id": label, "bbox": box, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {
            "info": {},
            "images": [{"id": image} for image in truth["image_id"]],
            "categories": [{"id": label, "name": name} for label, name in enumerate(NAMES)],
            "annotations": objects,
        }
        reference.createIndex()
        answer = reference.loadRes(results) if results else COCO()
        if not results:
            answer.dataset = {"images": reference.dataset["images"], "annotations": [], "categories": []}
            answer.createIndex()
        protocol = COCOeval(reference, answer, "bbox")
        protocol.evaluate()
        protocol.accumulate()
        protocol.summarize()
    return protocol.stats.tolist(), protocol


@pytest.mark.parametrize("seed", range(30))
def test_the_twelve_figures_equal_pycocotools(seed: int) -> None:
    truth, detections = random_set(seed)
    ours = coco_metrics(truth, detections)
    theirs, protocol = pycocotools(truth, detections)
    assert [-1 if ours[key] is None else ours[key] for key in METRICS] == theirs
    for name, metrics in ours["per_class"].items():
        precision = protocol.eval["precision"][:, :, NAMES.index(name), 0, 2]
        assert metrics["map"] == pytest.approx(precision.mean(), abs=1e-10)
    matches = match_split(truth, detections)
    for number, area in enumerate(AREAS):
        table = precision_recall(matches, area)
        assert np.array_equal(table.precision, protocol.eval["precision"][..., number, 2])
        for which, limit in enumerate(LIMITS):
            assert np.array_equal(table.recall[limit], protocol.eval["recall"][..., number, which])


def test_the_random_sets_hold_the_hard_cases() -> None:
    sets = [random_set(seed) for seed in range(30)]
    assert any(found.labels.bincount(minlength=1).max() > 100 for _, detections in sets for found in detections)
    assert any(any(row["iscrowd"]) for truth, _ in sets for row in truth["objects"])
    assert any(not row["bbox"] for truth, _ in sets for row in truth["objects"])


def test_official_figures_on_a_hundred_images_of_coco() -> None:
    folder = SHARED / "metrics" / "coco_val2014_100"
    if not folder.exists():
        pytest.skip(f"no {folder}: set DETR_FT_TEST_DATA to the folder of test data")
    content = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())["bbox"]
    labels = {one["id"]: label for label, one in enumerate(content["categories"])}
    names = [one["name"] for one in content["categories"]]
    references, predictions = [], []
    for image in sorted(one["id"] for one in content["images"]):
        inside = [one for one in content["annotations"] if one["image_id"] == image]
        references.append(
            detection_objects(
                [one["bbox"] for one in inside],
                [labels[one["category_id"]] for one in inside],
                area=[one["area"] for one in inside],
                iscrowd=[bool(one["iscrowd"]) for one in inside],
            )
        )
        here = [one for one in results if one["image_id"] == image]
        predictions.append(
            {
                "boxes": [[x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in here)],
                "scores": [one["score"] for one in here],
                "labels": [labels[one["category_id"]] for one in here],
            }
        )
    ours = CocoMeanAveragePrecision(names).compute(predictions=predictions, references=references)
    assert [ours[key] for key in METRICS] == pytest.approx(list(expected.values()), abs=1e-10)


def test_every_class_with_objects_is_listed_and_counted_and_json_is_valid(capfd: pytest.CaptureFixture[str]) -> None:
    one = {"bbox": [[10, 10, 20, 20], [50, 50, 9, 9]], "category": [2, 0], "area": [400, 81], "iscrowd": [False, True]}
    found = Detections(torch.tensor([[10.0, 10, 30, 30]]), torch.tensor([0.9]), torch.tensor([2]))
    metrics = coco_metrics(split_of(NAMES, [7], [one]), [found])
    assert metrics["per_class"] == {"dog": pytest.approx({"map": 1.0, "map_50": 1.0, "mar_100": 1.0, "count": 1})}
    assert metrics["map"] == metrics["map_small"] == pytest.approx(1.0)
    assert metrics["map_large"] is None
    json.dumps(metrics, allow_nan=False)
    assert capfd.readouterr() == ("", "")


def test_metrics_without_objects_are_none() -> None:
    empty: dict[str, list[Any]] = {"bbox": [], "category": [], "area": [], "iscrowd": []}
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    metrics = coco_metrics(split_of(NAMES, [1, 2], [empty, empty]), [nothing, nothing])
    assert metrics["map"] is None
    assert metrics["per_class"] == {}


def test_as_many_detections_as_images() -> None:
    truth, detections = random_set(0)
    with pytest.raises(InputError, match="as many"):
        coco_metrics(truth, [])
    with pytest.raises(InputError, match=r"truth: .*data\['train'\], got DatasetDict"):
        coco_metrics(DatasetDict(train=truth), detections)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"detections\[0\]: must be Detections .*dict"):
        coco_metrics(truth, [{} for _ in detections])  # type: ignore[misc]


def test_named_detections_are_compared_by_the_names_of_their_classes() -> None:
    truth, detections = next(one for one in map(random_set, range(30)) if sum(map(len, one[1])) > 9)
    expected = coco_metrics(truth, detections)
    backward = ["more", *NAMES[::-1]]
    named = [
        Detections(image.boxes, image.scores, len(NAMES) - image.labels, backward if len(image) else ())
        for image in detections
    ]
    assert coco_metrics(truth, named) == expected
    with pytest.raises(InputError, match="classes that the model doesn't know: dog, bird"):
        coco_metrics(
            truth, [replace(image, labels=image.labels * 0, names=NAMES[:2] + NAMES[-1:]) for image in detections]
        )


def test_labels_beyond_the_classes_are_refused() -> None:
    truth, detections = next(one for one in map(random_set, range(30)) if len(one[1][0]))
    with pytest.raises(InputError, match=r"detections\[0\]: label \d+ is beyond the 5 classes of the data: cat"):
        coco_metrics(truth, [replace(image, labels=image.labels + 5) for image in detections])


def test_the_metric_equals_the_function_whatever_the_batches() -> None:
    truth, detections = next(one for one in map(random_set, range(30)) if len(one[0]) > 4)
    order = np.argsort(truth["image_id"]).tolist()  # the metric takes the order given for that of the ids
    truth, detections = truth.select(order), [detections[row] for row in order]
    plain = [{"boxes": d.boxes.tolist(), "scores": d.scores.tolist(), "labels": d.labels.tolist()} for d in detections]
    expected = coco_metrics(truth, detections)
    objects = list(truth["objects"])
    assert CocoMeanAveragePrecision(NAMES).compute(predictions=plain, references=objects) == expected
    metric = CocoMeanAveragePrecision(NAMES)
    for prediction, reference in zip(plain, objects, strict=True):
        metric.add(prediction=prediction, reference=reference)
    assert metric.compute() == expected
