"""The card contains the metrics, is valid for the Hub, and is read back unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from detr_ft.errors import InputError
from detr_ft.hub.card import model_card, write_card
from detr_ft.hub.card_sections import paper_of

NAME = "me/bolts-and-nuts"


def test_the_card_round_trips_and_contains_the_metrics(run: Path) -> None:
    card = ModelCard.load(write_card(run, NAME))
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "object-detection"
    assert card.data.base_model == "facebook/detr-resnet-50"
    assert {result.metric_type: result.metric_value for result in card.data.eval_results}["map"] == 0.512
    assert "bolt, nut" in card.text
    assert "| bolt | 12 | 0.500 | 0.750 | 0.600 |" in card.text
    assert "| nut | 0 | – | – | – |" in card.text
    assert "HungarianMatcher" in card.text
    assert f'model="{NAME}"' in card.text
    assert "private" not in str(card)  # the folders of the data


def test_the_card_of_a_bare_model_is_valid(tiny_model: Path, tmp_path: Path) -> None:
    assert model_card(tiny_model, NAME).data.eval_results is None


def test_class_names_cannot_break_the_table(run: Path) -> None:
    (run / "metrics.json").write_text('{"map": 0.1, "per_class": {"a|b\\n<i>": {"map": 0.1}}}')
    assert "| a\\|b &lt;i> | 0 | 0.100 |" in model_card(run, NAME).text


def test_a_broken_file_is_named(run: Path) -> None:
    (run / "metrics.json").write_text("{")
    with pytest.raises(InputError, match=r"metrics\.json"):
        write_card(run, NAME)


@pytest.fixture
def full_run(run: Path) -> Path:
    """A run whose files have everything that a card may contain."""
    config = json.loads((run / "config.json").read_text())
    config["detr_ft"] |= {"labels": {"reused": {"bolt": "screw"}, "new": ["nut"]}}
    (run / "config.json").write_text(json.dumps(config))
    metrics = json.loads((run / "metrics.json").read_text()) | {
        "images": 40,
        "map_small": 0.2,
        "map_medium": 0.6,
        "intervals": {"map": [0.4, 0.6], "map_50": None},
        "thresholds": {"bolt": {"threshold": 0.7, "precision": 0.9, "recall": 0.8, "f1": 0.85}},
        "errors": {"missed": {"count": 7, "map_50_lost": 0.12}},
        "calibration": {"error": 0.2, "bins": []},
        "data": {
            "train_images": 1200, "held_out_images": 40, "skipped_images": 2, "train_boxes": 1300,
            "boxes": "1300 boxes are trained on, 4 clipped to the image", "per_class": {"bolt": 1290, "nut": 10},
            "sizes": {"small": 100, "medium": 1200, "large": 0},
        },
        "environment": {"date": "2026-01-01", "hardware": "CPU, 2 threads", "torch": "2.13.0"},
        "seconds": 90, "watt_hours": 1.25, "peak_memory_mib": 2048, "command": "detr-ft train parts.yaml",
    }  # fmt: skip
    (run / "metrics.json").write_text(json.dumps(metrics))
    exported = {
        "hardware": "CPU, 2 threads",
        "files": {"onnx": {"path": "onnx/model.onnx", "bytes": 10}},
        "latency": {"pytorch": {"median": 20.0}, "onnx": {"median": 10.0}, "int8": {"median": 8.0}},
        "figures": {"pytorch": {"map": 0.512}, "int8": {"map": 0.5}},
    }
    (run / "export.json").write_text(json.dumps(exported))
    return run


@pytest.mark.parametrize(
    "words",
    [
        "| mAP | 0.512 | 0.400 to 0.600 |",
        "| mAP50 | 0.800 | – |",
        "on 40 images",
        "| bolt | 12 | 0.500 | 0.750 | 0.600 | 0.70 | 0.900 | 0.800 | 0.850 |",
        "| missed | 7 | 0.120 |",
        "1,200 training images, 40 held out",
        "2 images could not be used",
        "4 clipped to the image",
        "100 small, 1,200 medium, 0 large boxes",
        "bolt 1,290, nut 10",
        "- `HungarianMatcher`: Carion et al., ECCV 2020, equation 1\n",
        "It has 5 queries",
        "weakest on small objects (mAP 0.200)",
        "fewer than 20 boxes: nut",
        "by 0.20 on average",
        "| ONNX Runtime | `onnx/model.onnx` | 10.0 | 0.50 |",
        "0.5000 with eight bits and 0.5120",
        "- hardware: CPU, 2 threads",
        "- time: 1.5 minutes",
        "- energy: 1.25 Wh",
        "- memory: 2,048 MiB peak",
        "bolt (as screw)",
        "```bash\ndetr-ft train parts.yaml\n```",
        "](examples/1-found.jpg)",
        'detector = pipeline("object-detection"',
    ],
)
def test_the_card_contains(full_run: Path, words: str) -> None:
    assert words in model_card(full_run, NAME).text


def test_it_comes_back_as_it_was_written(full_run: Path) -> None:
    card = ModelCard.load(write_card(full_run, NAME, dataset="me/parts"))
    data = card.data
    assert ModelCard(str(card)).data.to_dict() == data.to_dict()
    assert data.datasets == ["me/parts"]
    (figure,) = (one for one in data.eval_results if one.metric_type == "map")
    assert (figure.metric_value, figure.metric_args) == (0.512, {"interval": [0.4, 0.6], "level": 0.95})
    assert (figure.dataset_type, figure.dataset_name) == ("me/parts", "me/parts")


def test_built_in_terms_are_cited_as_plain_names_too() -> None:
    assert paper_of("GIoULoss") == "Rezatofighi et al., CVPR 2019"
    assert paper_of("GIoUCost") == "Carion et al., ECCV 2020, equation 1; Rezatofighi et al., CVPR 2019"
    assert paper_of("FocalLoss") == paper_of("SoftmaxFocalLoss") == "Lin et al., ICCV 2017, equation 4"
    assert paper_of("mine.py:Loss") == paper_of("Unheard") == paper_of("GreedyMatcher") == ""
