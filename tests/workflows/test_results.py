from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from detr_ft.criterion import detr_criterion
from detr_ft.data.generated.generate import generate
from detr_ft.data.schema import boxes_of_classes
from detr_ft.evaluation.coco import coco_metrics
from detr_ft.inference import Detector
from detr_ft.models.benchmark import measure
from detr_ft.models.label_map import fit_labels
from detr_ft.models.predict import detect_split, predict_split_raw
from detr_ft.report.content import RunReport
from detr_ft.report.page import render_page
from detr_ft.workflows.results import collect_report

DATA = generate("workshop?train=12&validation=10&edge=64")


@pytest.fixture(scope="module")
def detector(tiny_checkpoint: Path) -> Detector:
    one = Detector.load(str(tiny_checkpoint))
    fit_labels(one.model, DATA["train"].features["objects"]["category"].feature.names)
    return one


def test_the_report_of_a_model_has_all_sections(detector: Detector) -> None:
    split = DATA["validation"]
    detected = detect_split(detector.model, detector.processor, split)
    report = collect_report(
        detector.model,
        detector.processor,
        detr_criterion(),
        split,
        detected,
        "here",
        4,
        boxes_of_classes(DATA["train"]),
    )
    assert report.assessment.coco == coco_metrics(split, detected)
    assert report.matching is not None
    assert report.matching.objects == sum(boxes_of_classes(split).values())
    assert len(report.matching.layers) == detector.model.config.decoder_layers
    assert len(report.queries) == min(18, detector.model.config.num_queries)
    assert report.speed is not None
    assert report.speed.parameters == detector.model.num_parameters()
    assert sum(group.classes for group in report.assessment.frequency.values()) == len(
        report.assessment.coco["per_class"]
    )
    assert report.photos
    for photo in report.photos:
        assert all(outline.score is None for outline in photo.objects)
        assert all(outline.score is not None for outline in photo.detections)
        assert f"{len(photo.objects)} objects, {len(photo.detections)} detections" in photo.caption
    html = render_page(RunReport(title="t", verdict="v", evaluation=report))
    assert len(html.encode()) < 5_000_000


def test_the_pictures_are_of_the_images_that_they_name(detector: Detector) -> None:
    split = DATA["validation"].select([7, 2, 9, 0, 4])  # ids that don't rise
    detected = detect_split(detector.model, detector.processor, split)
    report = collect_report(detector.model, detector.processor, detr_criterion(), split, detected, "here", 4)
    objects = {row["image_id"]: len(row["objects"]["category"]) for row in split}
    assert report.photos
    for photo in report.photos:
        image = int(re.search(r"image (\d+)", photo.caption)[1])  # type: ignore[index]
        assert len(photo.objects) == objects[image]


def test_raw_predictions_of_all_layers_equal_the_outputs(detector: Detector) -> None:
    stock = detector.model.loss_function
    batches = list(
        predict_split_raw(detector.model, detector.processor, detr_criterion(), DATA["validation"], batch_size=4)
    )
    assert [len(targets.counts) for _, targets in batches] == [4, 4, 2]
    assert detector.model.loss_function == stock
    counts = [len(row["category"]) for row in DATA["validation"]["objects"]]
    assert [count for _, targets in batches for count in targets.counts] == counts
    answered = torch.cat([predictions.logits[-1] for predictions, _ in batches]).softmax(-1)[..., :-1].amax((1, 2))
    detected = detect_split(detector.model, detector.processor, DATA["validation"])
    assert answered.tolist() == pytest.approx([float(one.scores[0]) for one in detected], abs=0.05)  # another resize


def test_speed_has_an_order_and_a_size(detector: Detector) -> None:
    from detr_ft.data.images import open_image

    images = [open_image(row["image"]) for row in DATA["train"].select(range(3))]
    speed = measure(detector.model, detector.processor, images, 4, "here")
    assert 0 < speed.latency_spread[0] <= speed.latency <= speed.latency_spread[1]
    assert speed.throughput > 0
    assert speed.flops > 1e6
    assert speed.pixels == (images[0].height, images[0].width)
