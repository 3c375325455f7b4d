from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from detr_ft.errors import InputError
from detr_ft.models.label_map import LabelMap, fit_labels
from detr_ft.models.load import load_model
from detr_ft.models.metadata import write_labels


def test_new_classes_keep_no_object_and_what_is_known(tiny_checkpoint: Path) -> None:
    model, _ = load_model(str(tiny_checkpoint))
    head = model.class_labels_classifier
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    fitted = fit_labels(model, ["fox", "owl", "elk", "cat"])
    assert (fitted.reused, fitted.new) == ({"owl": "owl", "cat": "cat"}, ["fox", "elk"])
    new = model.class_labels_classifier
    assert new.weight.shape == (5, 32)
    assert torch.equal(new.weight[-1], weight[-1])
    assert torch.equal(new.bias[-1], bias[-1])
    assert torch.equal(new.weight[1], weight[2])
    assert torch.equal(new.weight[3], weight[0])
    assert model.config.id2label == {0: "fox", 1: "owl", 2: "elk", 3: "cat"}
    assert model.config.num_labels == 4
    mean = weight[:-1].mean(0)
    assert 0 < (new.weight[0] - mean).abs().max() < 0.5 * weight.std()


def test_the_same_classes_change_nothing(tiny_checkpoint: Path) -> None:
    model, _ = load_model(str(tiny_checkpoint))
    head = model.class_labels_classifier
    assert fit_labels(model, ["cat", "dog", "owl"]).new == []
    assert model.class_labels_classifier is head


def test_a_synonym_takes_the_row_of_its_class(tiny_checkpoint: Path) -> None:
    model, _ = load_model(str(tiny_checkpoint))
    weight = model.class_labels_classifier.weight.detach().clone()
    fitted = fit_labels(model, ["kitten", "dog"], synonyms={"kitten": "cat"})
    assert fitted.reused == {"kitten": "cat", "dog": "dog"}
    assert torch.equal(model.class_labels_classifier.weight[:2], weight[:2])
    assert fitted.new == []


def test_unknown_synonyms_are_reported_together(tiny_checkpoint: Path) -> None:
    model, _ = load_model(str(tiny_checkpoint))
    with pytest.raises(InputError) as caught:
        fit_labels(model, ["kitten"], synonyms={"kitten": "lion", "puppy": "dog"})
    of_data, of_checkpoint = caught.value.problems
    assert of_data.startswith("model.synonyms: ")
    assert "'puppy'" in of_data
    assert of_checkpoint.startswith("model.synonyms: ")
    assert "'lion'. Use one of cat, dog, owl" in of_checkpoint


def test_new_classes_start_from_a_prior_by_their_boxes(tiny_checkpoint: Path) -> None:
    """Between two new classes the biases differ by the logarithm of how often they occur; no box counts as one."""
    model, _ = load_model(str(tiny_checkpoint))
    old = model.class_labels_classifier.bias.detach().clone()
    fit_labels(model, ["fox", "elk", "bee"], counts={"fox": 800, "elk": 100})
    bias = model.class_labels_classifier.bias.detach()
    assert float(bias[0] - bias[1]) == pytest.approx(math.log(8), abs=1e-5)
    assert float(bias[1] - bias[2]) == pytest.approx(math.log(100), abs=1e-5)
    assert float(bias[:3].mean()) == pytest.approx(float(old[:-1].mean()), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"id2label": {"0": "cat", "1": "dog", "2": "owl", "3": "elk"}, "label2id": {}},
            r"class_labels_classifier.weight is \[4, 32\] in the checkpoint and \[5, 32\] by its config",
        ),
        ({"label2id": {"cat": 1, "dog": 0, "owl": 2}}, "label2id and id2label differ at 'cat'"),
        (
            {"id2label": {"0": "cat", "1": "dog", "7": "owl"}, "label2id": {}},
            r"id2label .*0 to 2, got \[0, 1, 7\]",
        ),
    ],
    ids=["too-many", "contradiction", "gap"],
)
def test_a_config_that_contradicts_itself_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "broken")
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=words):
        load_model(str(folder))


def test_the_map_goes_with_the_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model, processor = load_model(str(tiny_checkpoint))
    fitted = fit_labels(model, ["kitten", "elk"], synonyms={"kitten": "cat"})
    write_labels(model.config, fitted.reused, fitted.new)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert LabelMap.of(load_model(str(tmp_path))[0], "it") == fitted
