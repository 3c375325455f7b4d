"""The card tells what was measured, holds for the Hub's checker, and comes back as it was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from detr_ft.errors import UserError
from detr_ft.hub.card import model_card, write_card

NAME = "me/bolts-and-nuts"


def test_the_card_round_trips_and_tells_what_was_measured(run: Path) -> None:
    card = ModelCard.load(write_card(run, NAME))
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "object-detection"
    assert card.data.base_model == "facebook/detr-resnet-50"
    assert {result.metric_type: result.metric_value for result in card.data.eval_results}["map"] == 0.512
    assert "bolt, nut" in card.text
    assert "| bolt | 0.500 | 0.750 | 0.600 | 12 |" in card.text
    assert "| nut | - | - | - | 0 |" in card.text
    assert "HungarianMatcher" in card.text
    assert f'model="{NAME}"' in card.text
    assert "private" not in str(card)  # the folders of the data


def test_the_card_of_a_bare_model_is_valid(tiny_model: Path, tmp_path: Path) -> None:
    assert model_card(tiny_model, NAME).data.eval_results is None


def test_class_names_cannot_break_the_table(run: Path) -> None:
    (run / "metrics.json").write_text('{"map": 0.1, "per_class": {"a|b\\n<i>": {"map": 0.1}}}')
    assert "| a\\|b &lt;i> | 0.100 |" in model_card(run, NAME).text


def test_a_broken_file_is_named(run: Path) -> None:
    (run / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics\.json"):
        write_card(run, NAME)
