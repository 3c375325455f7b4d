"""Damaged values in the JSON files of a checkpoint are reported with file and key, in seconds and bounded memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detr_ft.errors import InputError
from detr_ft.models.config_values import check_config, check_memory
from detr_ft.models.load import empty_model, load_detector, load_model, local_family, num_queries_of

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
ABSENT = object()
SIZE = {"max_height": 64, "max_width": 64}


@pytest.fixture
def damaged(tmp_path: Path, tiny_checkpoint: Path) -> Callable[..., str]:
    """A checkpoint with another value of a key in one of its files, or with another text."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)

    def damage(file: str, key: str = "", value: object = None, text: str | None = None) -> str:
        content = json.loads((folder / file).read_text()) | {key: value}
        (folder / file).write_text(text if text is not None else json.dumps(content))
        return str(folder)

    return damage


def refusal(checkpoint: str) -> str:
    """The message of the error; every way to load it ends with one or without an error."""
    assert local_family(checkpoint) is None or local_family(checkpoint)
    num_queries_of(checkpoint)
    for load in (empty_model, load_detector):
        try:
            load(checkpoint)
        except InputError:
            continue
    with pytest.raises(InputError) as caught:
        load_model(checkpoint)
    message = str(caught.value)
    assert message.startswith(checkpoint)
    return message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_queries", 10**9, "num_queries must be at most 1,000,000"),
        ("num_queries", 10**400, "num_queries must be at most 1,000,000, got a number of 401 digits"),
        ("num_queries", "x", "'num_queries' expected int, got str"),
        ("num_queries", None, "'num_queries' expected int"),
        ("num_queries", -1, "negative dimension"),
        ("num_queries", 0, "query_position_embeddings.weight is [8, 32]"),
        ("decoder_attention_heads", 0, "ZeroDivisionError"),
        ("decoder_layers", 10**9, "decoder_layers must be at most 1,000,"),
        ("backbone_config", {"model_type": "resnet", "depths": [1, 10**9]}, "backbone_config.depths must be at most 1,000"),
        ("backbone_config", {}, "KeyError"),
        ("activation_function", "x", "KeyError: 'x'"),
        ("num_labels", 10**9, "num_labels must be a whole number up to 100,000"),
        ("num_labels", "x", "num_labels must be a whole number"),
        ("id2label", [], "id2label must be a mapping"),
        ("id2label", {"a": "b"}, "id2label must have ids and names, got 'a': 'b'"),
        ("id2label", {"9" * 5000: "b"}, "id2label must have ids and names"),
        ("id2label", {"0": None}, "id2label must have ids and names, got '0': None"),
        ("id2label", {"0": "a", "2": "b", "3": "c"}, "id2label must have the ids 0 to 2, got [0, 2, 3]"),
        ("label2id", "x", "label2id must be a mapping"),
        ("label2id", {"cat": "a"}, "label2id must have names and ids, got 'cat': 'a'"),
        ("label2id", {"cat": float("inf")}, "label2id must have names and ids, got 'cat': inf"),
        ("model_type", [], "TypeError"),
        ("dtype", "x", "AttributeError"),
    ],
)  # fmt: skip
def test_a_damaged_value_of_a_config_is_reported(
    damaged: Callable[..., str], key: str, value: object, words: str
) -> None:
    assert words in refusal(damaged(CONFIG, key, value))


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", '"x"', "", "\0", '{"a":' * 20_000 + "1" + "}" * 20_000, '{"a": ' + "9" * 5000 + "}"],
    ids=range(8),
)  # fmt: skip
@pytest.mark.parametrize("file", [CONFIG, PROCESSOR])
def test_a_file_that_is_no_mapping_is_reported(damaged: Callable[..., str], file: str, text: str) -> None:
    if (file, text) == (PROCESSOR, "null"):
        pytest.skip("transformers reads it as an empty file")
    refusal(damaged(file, text=text))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("size", {**SIZE, "max_width": "64"}, "size.max_width must be whole pixels from 1 to 32,768, got '64'"),
        ("size", {**SIZE, "max_width": -1}, "size.max_width must be whole pixels"),
        ("size", {**SIZE, "max_width": 10**9}, "size.max_width must be whole pixels"),
        ("size", {**SIZE, "max_width": 64.5}, "size.max_width must be whole pixels"),
        ("size", {"shortest_edge": float("inf")}, "size.shortest_edge must be whole pixels"),
        ("size", "x", "size"),
        ("size", [], "IndexError"),
        ("pad_size", {"height": 10**9, "width": 64}, "pad_size.height must be whole pixels"),
        ("pad_size", ["a", "b", "c"], "pad_size.height must be whole pixels from 1 to 32,768, got 'a'"),
        ("image_mean", None, "image_mean must be three finite numbers, got None"),
        ("image_mean", [0.5, 0.5], "image_mean must be three finite numbers"),
        ("image_mean", [0.5, 0.5, float("nan")], "image_mean must be three finite numbers"),
        ("image_std", [0, 0, 0], "image_std must be three positive numbers, got (0, 0, 0)"),
        ("image_processor_type", {}, "AttributeError"),
    ],
)
def test_a_damaged_value_of_a_processor_is_reported(
    damaged: Callable[..., str], key: str, value: object, words: str
) -> None:
    assert words in refusal(damaged(PROCESSOR, key, value))


def test_a_config_of_a_far_larger_model_than_its_weights_allocates_nothing(damaged: Callable[..., str]) -> None:
    assert "its config.json describes a model of" in refusal(damaged(CONFIG, "d_model", 16_384))
    check_memory("checkpoint", 99_000_000, 1000)
    check_memory("checkpoint", 200_000_000, 100_000_000)


def test_too_many_classes_are_refused_and_duplicate_names_are_not() -> None:
    many: dict[str, Any] = {"id2label": {str(index): f"n{index}" for index in range(1_000_000)}}
    with pytest.raises(InputError, match="id2label has 1,000,000 classes"):
        check_config("checkpoint", many)
    assert check_config("checkpoint", {"id2label": {"0": "N/A", "1": "N/A"}, "label2id": {"N/A": 1}})
