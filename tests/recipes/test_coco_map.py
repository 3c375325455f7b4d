"""The folder of the evaluate module loads by its path, without a network, and works as documented."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import evaluate
import pytest

FOLDER = Path(__file__).parents[2] / "recipes/coco_map"


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(evaluate.loading, "HF_MODULES_CACHE", str(tmp_path / "modules"), raising=False)


def reference(*boxes: list[float]) -> dict[str, Any]:
    number = len(boxes)
    return {
        "id": list(range(number)), "bbox": list(boxes), "category": [1] * number, "area": [box[2] * box[3] for box in boxes],
        "iscrowd": [False] * number, "difficult": [False] * number, "truncated": [False] * number,
    }  # fmt: skip


def test_it_loads_by_its_path_and_counts() -> None:
    metric = evaluate.load(str(FOLDER), names=["cat", "dog"])
    detections = {"boxes": [[0.0, 0, 10, 10]], "scores": [0.9], "labels": [1]}
    metric.add(prediction=detections, reference=reference([0.0, 0, 10, 10]))
    metric.add_batch(predictions=[detections], references=[reference([20.0, 20, 10, 10])])
    metrics = metric.compute()
    assert 0 < metrics["map"] < 1
    assert metrics["per_class"]["dog"]["count"] == 2


def test_without_names_classes_have_numbers() -> None:
    metric = evaluate.load(str(FOLDER))
    detections = {"boxes": [[0.0, 0, 10, 10]], "scores": [0.9], "labels": [1]}
    assert list(metric.compute(predictions=[detections], references=[reference([0.0, 0, 10, 10])])["per_class"]) == [
        "1"
    ]


def test_a_label_without_a_name_is_reported() -> None:
    metric = evaluate.load(str(FOLDER), names=["cat"])
    detections = {"boxes": [[0.0, 0, 10, 10]], "scores": [0.9], "labels": [1]}
    with pytest.raises(ValueError, match=r"^names: .* got label 1 and cat"):
        metric.compute(predictions=[detections], references=[reference([0.0, 0, 10, 10])])


def test_the_example_of_its_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(FOLDER.parents[1])
    (tmp_path / "page.py").write_text(code)
    runpy.run_path(str(tmp_path / "page.py"))
    assert 0 < float(capsys.readouterr().out) <= 1


def test_the_speed_up_is_that_of_the_benchmark() -> None:
    root = FOLDER.parents[1]
    table = (root / "tests/benchmarks/README.md").read_text(encoding="utf-8")
    measured = re.search(r"^\| detr_ft \| [\d.]+ \| ([\d.]+) \|", table, re.MULTILINE)
    assert measured is not None
    speed_up = f"{float(measured[1]):.0f}"
    module = (FOLDER / "coco_map.py").read_text(encoding="utf-8")
    pages = [page.read_text(encoding="utf-8") for page in (root / "README.md", *root.glob("docs/*.md"))]
    claims = re.findall(r"(\S+) times as fast", module) + re.findall(r"(\S+) times its speed", "".join(pages))
    assert claims
    assert set(claims) == {speed_up}
