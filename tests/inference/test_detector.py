from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import (
    AutoImageProcessor,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    ResNetConfig,
    pipeline,
)

from detr_ft.boxes import iou, xyxy_to_cxcywh
from detr_ft.data.generated.generate import generate
from detr_ft.data.images import open_image
from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.errors import InputError
from detr_ft.evaluation.detections import coco_results
from detr_ft.inference import Detector
from detr_ft.models.attention import attention_maps
from detr_ft.models.predict import detect_split
from detr_ft.structures import Detections


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    names = {index: f"class {index}" for index in range(11)}  # more than ten: names must not be sorted as text
    model = DetrForObjectDetection(
        DetrConfig(backbone_config=backbone, num_queries=10, id2label=names, **sizes, **heads)
    )
    with torch.no_grad():
        for weight in (one for one in model.parameters() if one.ndim == 2):
            weight.mul_(10)  # so that queries and scores differ
    model.save_pretrained(folder)
    DetrImageProcessor(size={"max_height": 96, "max_width": 96}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def detector(checkpoint: Path) -> Detector:
    return Detector(
        DetrForObjectDetection.from_pretrained(checkpoint).eval(), AutoImageProcessor.from_pretrained(checkpoint)
    )


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = rng.integers(30, 240, (50, 2)).tolist()
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


@pytest.mark.parametrize("one_by_one", [False, True])
def test_the_same_as_the_pipeline_of_transformers(
    checkpoint: Path, detector: Detector, images: list[Image.Image], one_by_one: bool
) -> None:
    stock = pipeline("object-detection", model=str(checkpoint))
    detected = (
        [detector.detect([image])[0] for image in images] if one_by_one else detector.detect(images, batch_size=50)
    )
    for image, ours in zip(images, detected, strict=True):
        theirs = sorted(stock(image, threshold=0.0), key=lambda one: -one["score"])
        assert [one["score"] for one in theirs] == pytest.approx(ours.scores.tolist(), abs=1e-4)
        assert [one["label"] for one in theirs] == [detector.names[label] for label in ours.labels]
        # The pipeline cuts its boxes down to integers; its own parts give them whole.
        whole = stock.forward(stock.preprocess(image))
        exact = stock.image_processor.post_process_object_detection(whole, 0.0, whole["target_size"])[0]
        order = exact["scores"].argsort(descending=True, stable=True)
        assert iou(xyxy_to_cxcywh(ours.boxes), xyxy_to_cxcywh(exact["boxes"][order])).min() >= 0.99
        cut = torch.tensor([[one["box"][key] for key in ("xmin", "ymin", "xmax", "ymax")] for one in theirs])
        assert (ours.boxes - cut).abs().max() <= 1.001


def test_load_gives_the_same_detector(checkpoint: Path, detector: Detector, images: list[Image.Image]) -> None:
    loaded = Detector.load(checkpoint)
    torch.testing.assert_close(loaded.detect(images[:1])[0].boxes, detector.detect(images[:1])[0].boxes)


def test_names_follow_the_indices(detector: Detector) -> None:
    assert detector.names == [f"class {index}" for index in range(11)]


def test_files_and_images_upright(detector: Detector, images: list[Image.Image], tmp_path: Path) -> None:
    upright = images[0]
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees counter-clockwise
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    sources = [upright, str(tmp_path / "upright.png"), tmp_path / "turned.png", Image.open(tmp_path / "turned.png")]
    first, *others = detector.detect(sources)
    for other in others:
        torch.testing.assert_close(first.boxes, other.boxes)
    with pytest.raises(InputError, match=r"missing\.png"):
        detector.detect([tmp_path / "missing.png"])


@pytest.mark.parametrize("mode", ["RGBA", "I;16", "L", "P"])
def test_an_opened_image_of_any_mode_is_what_its_file_is(
    detector: Detector, images: list[Image.Image], tmp_path: Path, mode: str
) -> None:
    rgb = images[0]
    opened = {
        "RGBA": Image.merge("RGBA", [*rgb.split(), rgb.getchannel("R")]),
        "I;16": Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257),
        "L": rgb.convert("L"),
        "P": rgb.convert("P"),
    }[mode]
    opened.save(tmp_path / "same.png")
    given, read = detector.detect([opened, tmp_path / "same.png"])
    torch.testing.assert_close(given.boxes, read.boxes)
    torch.testing.assert_close(given.scores, read.scores)


def split_of(images: list[Image.Image]) -> Dataset:
    rows: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        stream = BytesIO()
        image.save(stream, "PNG")
        objects = detection_objects([], [])
        size = {"width": image.width, "height": image.height}
        rows.append(
            {"image": {"path": None, "bytes": stream.getvalue()}, "image_id": number, **size, "objects": objects}
        )
    return Dataset.from_list(rows, features=detection_features(["a"]))


def test_one_path_is_no_list(detector: Detector, tmp_path: Path) -> None:
    for one in ("photos", tmp_path, Image.new("RGB", (40, 40))):
        with pytest.raises(InputError, match=r"detect: .*detect\(\[image\]\)"):
            detector.detect(one)  # type: ignore[arg-type]


def test_a_split_in_its_order_with_progress(detector: Detector, images: list[Image.Image]) -> None:
    done: list[int] = []
    split = split_of(images[:9])
    detected = detect_split(detector.model, detector.processor, split, 2, progress=done.append)
    assert done == list(range(1, 10))
    for ours, alone in zip(detected, detector.detect(images[:9], batch_size=1), strict=True):
        torch.testing.assert_close(ours.boxes, alone.boxes)


def test_coco_results() -> None:
    detected = Detections(torch.tensor([[1.0, 2, 4, 8], [0, 0, 2, 2]]), torch.tensor([0.75, 0.5]), torch.tensor([1, 0]))
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert coco_results([none, detected], image_ids=[4, 9], category_ids=[10, 30]) == [
        {"image_id": 9, "category_id": 30, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.75},
        {"image_id": 9, "category_id": 10, "bbox": [0.0, 0.0, 2.0, 2.0], "score": 0.5},
    ]


def test_each_class_has_the_threshold_that_the_model_was_saved_with(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    names = [config["id2label"][str(label)] for label in range(len(config["id2label"]))]
    detected = Detections(torch.zeros(3, 4), torch.tensor([0.6, 0.45, 0.2]), torch.tensor([0, 1, 1]))
    assert Detector.load(str(checkpoint)).filter(detected).scores.tolist() == pytest.approx([0.6])
    config["detr_ft"] = {"thresholds": {names[0]: 0.7, names[1]: 0.3}}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    detector = Detector.load(str(tmp_path / "model"))
    assert detector.thresholds == dict.fromkeys(names, 0.5) | {names[0]: 0.7, names[1]: 0.3}
    assert detector.filter(detected).scores.tolist() == pytest.approx([0.45])
    assert detector.filter(detected, 0.1).scores.tolist() == pytest.approx([0.6, 0.45, 0.2])


def test_thresholds_are_those_of_the_index_where_a_name_comes_twice(tiny_checkpoint: Path) -> None:
    """As N/A does in COCO's checkpoints."""
    detector = Detector.load(str(tiny_checkpoint))
    detector.model.config.id2label = {0: "N/A", 1: "N/A", 2: "owl"}
    detector.model.config.detr_ft = {"thresholds": {"owl": 0.8}}
    detected = Detections(torch.rand(3, 4), torch.tensor([0.9, 0.7, 0.6]), torch.tensor([2, 2, 1]))
    assert detector.filter(detected).labels.tolist() == [2, 1]


def test_threads_with_one_model_get_their_own_results() -> None:
    """Hooks read the outputs of layers, and attention needs another mode: neither may affect another thread."""
    detector = Detector.load("embedded:small")
    pictures = [
        open_image(row["image"])
        for row in generate("shapes?train=0&validation=0&test=4&seed=2")["test"].with_format(None)
    ]
    layers = int(detector.model.config.decoder_layers)
    expected = [detector.predictions(one).logits for one in pictures]
    detected = [detector.detect([one])[0].scores for one in pictures]

    def run(number: int) -> bool:
        one = number % len(pictures)
        if number % 3 == 0:
            return len(attention_maps(detector.model, detector.processor, pictures[one]).decoder) == layers
        if number % 3 == 1:
            return torch.equal(detector.detect([pictures[one]])[0].scores, detected[one])
        return torch.equal(detector.predictions(pictures[one]).logits, expected[one])

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(run, range(60)))
