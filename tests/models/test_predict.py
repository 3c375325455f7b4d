from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    ResNetConfig,
    pipeline,
)

from detr_ft.errors import InputError
from detr_ft.models.predict import detect
from detr_ft.structures import Detections


@pytest.fixture(scope="module")
def model() -> DetrForObjectDetection:
    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    model = DetrForObjectDetection(
        DetrConfig(backbone_config=backbone, num_queries=10, id2label={0: "a", 1: "b", 2: "c"}, **sizes, **heads)
    )
    with torch.no_grad():
        for weight in (one for one in model.parameters() if one.ndim == 2):
            weight.mul_(10)  # so that queries and scores differ
    return model.eval()


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("processor")
    DetrImageProcessor(size={"max_height": 96, "max_width": 96}).save_pretrained(folder)
    return AutoImageProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(64, 96), (96, 64), (300, 200), (50, 50), (64, 96), (120, 180), (31, 97)] * 2
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def assert_same(ours: list[Detections], theirs: list[Detections]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.boxes, other.boxes, atol=1e-3, rtol=0)
        assert one.labels.tolist() == other.labels.tolist()


def test_scores_and_boxes_are_those_of_the_formula(model, processor, images) -> None:
    image = images[2]
    detections = detect(model, processor, [image])[0]
    with torch.no_grad():
        outputs = model.eval()(**processor(images=image, return_tensors="pt"))
    scores, labels = outputs.logits[0].softmax(-1)[:, :-1].max(-1)
    scores, order = scores.sort(descending=True)
    cx, cy, w, h = outputs.pred_boxes[0][order].unbind(-1)
    corners = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], dim=-1)
    torch.testing.assert_close(detections.scores, scores)
    torch.testing.assert_close(detections.boxes, corners * torch.tensor([300.0, 200, 300, 200]))
    assert detections.labels.tolist() == labels[order].tolist()
    assert detections.scores[0] - detections.scores[-1] > 1e-3


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_the_batch_does_not_matter(model, processor, images, batch_size: int) -> None:
    alone = [detect(model, processor, [image])[0] for image in images]
    assert_same(detect(model, processor, images, batch_size=batch_size), alone)


@pytest.fixture
def padding(tmp_path) -> object:
    """A processor that pads every image to a square, as of a checkpoint that was trained so."""
    square = {"height": 96, "width": 96}
    DetrImageProcessor(size={"max_height": 96, "max_width": 96}, pad_size=square).save_pretrained(tmp_path)
    return AutoImageProcessor.from_pretrained(tmp_path)


def test_every_batch_has_the_size_of_the_canvas(model, padding, images) -> None:
    shapes: set[tuple[int, ...]] = set()
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.add(tuple(kwargs["pixel_values"].shape[-2:])), with_kwargs=True
    )
    together = detect(model, padding, images)
    hook.remove()
    assert shapes == {(96, 96)}
    assert_same(together, [detect(model, padding, [image])[0] for image in images])


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_canvas_is_served_alike_by_the_pipeline(model, padding, images, batch_size: int) -> None:
    """Also in batches of mixed sizes, where padding to the largest would change the results."""
    served = pipeline("object-detection", model=model, image_processor=padding, threshold=0.0, device="cpu")
    for detections, mine in zip(served(images, batch_size=batch_size), detect(model, padding, images), strict=True):
        rounded = sorted([list(one["box"].values()) for one in detections])
        assert rounded == sorted(mine.boxes.trunc().int().tolist())
        assert sorted(one["score"] for one in detections) == pytest.approx(sorted(mine.scores.tolist()), abs=1e-4)


def test_an_image_that_would_vanish_is_refused_in_words(model, processor) -> None:
    with pytest.raises(InputError, match=r"image 0: .*2000x1 pixels"):
        detect(model, processor, [Image.new("RGB", (2000, 1))])


def test_a_processor_that_stretches_is_served_as_it_is(model, images) -> None:
    stretching = DetrImageProcessor(size={"height": 64, "width": 64})
    detections = detect(model, stretching, images[:3])
    served = pipeline("object-detection", model=model, image_processor=stretching, threshold=0.0)(images[:3])
    for one, other in zip(detections, served, strict=True):
        assert sorted(one.scores.tolist()) == pytest.approx(sorted(each["score"] for each in other), abs=1e-4)


def test_a_canvas_that_is_not_used_is_none(model, processor, padding, images) -> None:
    padding.do_pad = False
    assert_same(detect(model, padding, images), detect(model, processor, images))


def test_top_keeps_the_best(model, processor, images) -> None:
    every, best = detect(model, processor, images[:1])[0], detect(model, processor, images[:1], top=3)[0]
    assert best.scores.tolist() == every.scores[:3].tolist()
    assert len(every.scores) == 10


def test_only_a_few_images_of_a_stream_are_in_memory(model, processor) -> None:
    recorded: list[int] = []

    def stream() -> Iterator[Image.Image]:
        for width in range(40, 80):
            recorded.append(width)
            yield Image.new("RGB", (width, 40))
        assert forwards

    forwards: list[int] = []
    hook = model.register_forward_hook(lambda *_: forwards.append(len(recorded)))
    detections = detect(model, processor, stream(), batch_size=2)
    hook.remove()
    assert len(detections) == 40
    assert forwards[0] <= 8


def test_half_precision_answers_in_full(model, processor, images) -> None:
    detections = detect(model.to(torch.bfloat16), processor, images[:2])
    model.to(torch.float32)
    assert detections[0].scores.dtype == detections[0].boxes.dtype == torch.float32


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored(model, processor, images, training: bool) -> None:
    model.train(training)
    detect(model, processor, images[:1])
    assert model.training is training
    with pytest.raises(AttributeError, match="width"):
        detect(model, processor, ["not an image"])  # type: ignore[list-item]
    assert model.training is training
    model.eval()


def test_nan_predictions_are_reported(model, processor, images) -> None:
    with torch.no_grad():
        model.bbox_predictor.layers[-1].weight.fill_(float("nan"))
    with pytest.raises(InputError, match="NaN"):
        detect(model, processor, images)


def test_no_images(model, processor) -> None:
    assert detect(model, processor, []) == []
