"""What commands do that none of their parts does alone."""

from __future__ import annotations

import json
from pathlib import Path

from detr_ft.data import load_data, write_coco
from detr_ft.workflows.evaluate import evaluate_by


def test_a_model_scores_the_same_on_data_that_states_twice_the_size(tmp_path: Path) -> None:
    """The images were reduced after they were annotated."""
    write_coco(load_data("generated:shapes?train=1&validation=6"), tmp_path / "data")
    as_is = evaluate_by("embedded:small", f"coco:{tmp_path}/data", "validation", 4)
    assert as_is["map"] > 0.1
    (file,) = (tmp_path / "data" / "validation").glob("*.json")
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["width"], image["height"] = 2 * image["width"], 2 * image["height"]
    for one in content["annotations"]:
        one["bbox"], one["area"] = [2 * value for value in one["bbox"]], 4 * one["area"]
    file.write_text(json.dumps(content))
    assert evaluate_by("embedded:small", f"coco:{tmp_path}/data", "validation", 4) == as_is
