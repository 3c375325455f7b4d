"""`metrics.json` is typed and versioned; files without a version still load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.synthetic_detections import model, truth

from detr_ft.errors import InputError
from detr_ft.evaluation.assessment import assess
from detr_ft.evaluation.detection_matching import match_detections
from detr_ft.evaluation.metrics import (
    COCO_METRICS,
    SCHEMA_VERSION,
    ClassMetrics,
    DataFacts,
    EvaluationMetrics,
    LayerMatching,
    MatchingMetrics,
    RunMetrics,
    TrainingEnd,
    VocClassMetrics,
    VocMetrics,
)
from detr_ft.utils.speed import Speed

UNVERSIONED = Path(__file__).parents[2] / "recipes/embedded/small/metrics.json"
SECTIONS = [
    *COCO_METRICS, "per_class", "intervals", "errors", "thresholds", "confusion", "calibration", "by_crowding", "by_frequency",
    "images", "voc", "matching", "speed", "environment",
]  # fmt: skip
OF_A_RUN = ["before", "seconds", "peak_memory_mib", "watt_hours", "data", "end", "command"]


@pytest.fixture(scope="module")
def measured() -> EvaluationMetrics:
    rng, names = np.random.default_rng(0), ["cup", "plate", "fork", "knife"]
    objects, hard = truth(rng, 20)
    return assess(
        match_detections(names, 20, objects, model(rng, objects, hard)), dict.fromkeys(names, 30), sets=20
    ).metrics()


@pytest.fixture(scope="module")
def whole(measured: EvaluationMetrics) -> RunMetrics:
    """A run with a value in every section."""
    sections = vars(measured) | {
        "voc": VocMetrics(0.5, None, {"cup": VocClassMetrics(0.5, 0.25, 3)}),
        "matching": MatchingMetrics([LayerMatching(0.5, 0.9, 1.0, 1.25)], 80, 3, 2, 9, 7),
        "speed": Speed("a CPU", 12, (480, 640), 10**9, 12.5, (11.0, 14.0), 8, 90.0, None),
        "environment": {"torch": "2.13.0"},
    }
    data = DataFacts(12, 3, 0, 40, "40 boxes", {"cup": 40}, {"small": 40, "medium": 0, "large": 0})
    return RunMetrics(
        **sections,
        before={"map": 0.25},
        seconds=12.5,
        peak_memory_mib=9,
        watt_hours=0.5,
        data=data,
        end=TrainingEnd(3.5, 10, "time limit", ["too short"], ["continue"]),
        command="x",
    )


def test_a_file_round_trips(whole: RunMetrics) -> None:
    assert None not in vars(whole).values()
    assert RunMetrics.from_json(whole.to_json()) == whole


def test_keys_of_the_file(whole: RunMetrics, measured: EvaluationMetrics) -> None:
    assert list(json.loads(measured.to_json())) == ["schema_version", *SECTIONS]
    content = json.loads(whole.to_json())
    assert list(content) == ["schema_version", *SECTIONS, *OF_A_RUN]
    assert content["schema_version"] == SCHEMA_VERSION == 1
    assert content["intervals"]["map"] == list(measured.intervals["map"] or ())
    assert content["errors"]["missed"].keys() == {"count", "map_50_lost"}
    assert content["confusion"]["names"][-1] == "background"
    assert content["speed"]["pixels"] == [480, 640]


def test_a_file_of_an_evaluation_is_read_as_that_of_a_run(measured: EvaluationMetrics) -> None:
    read = RunMetrics.from_json(measured.to_json())
    assert vars(read) == vars(measured) | dict.fromkeys(OF_A_RUN) | {"command": ""}


def test_a_file_without_a_version_has_version_zero() -> None:
    read, content = RunMetrics.read(UNVERSIONED), json.loads(UNVERSIONED.read_text())
    assert "schema_version" not in content
    assert read.schema_version == 0
    assert read.coco() == {name: content[name] for name in COCO_METRICS}
    assert read.per_class["circle"] == ClassMetrics(**content["per_class"]["circle"])
    assert (read.command, read.environment) == (content["command"], content["environment"])
    assert (read.thresholds, read.speed, read.data) == ({}, None, None)


def test_minus_one_is_not_measured() -> None:
    read = RunMetrics.from_json('{"map": -1, "map_50": 0, "per_class": {"nut": {"map": -1, "count": 0}}}')
    assert (read.map, read.map_50, read.per_class["nut"].map) == (None, 0.0, None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", r"run/metrics\.json: not valid JSON"),
        ("[]", r"run/metrics\.json: must be a JSON object"),
        ('{"schema_version": 2}', r"run/metrics\.json: schema_version is 2.*Update detr-ft"),
        ('{"schema_version": "x"}', r"run/metrics\.json: schema_version: "),
        ('{"speed": {"hardware": "a CPU"}}', r"run/metrics\.json: speed\.parameters: "),
        ('{"intervals": {"map": [0.1]}}', r"run/metrics\.json: intervals\.map\."),
    ],
)
def test_invalid_values_are_named(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        RunMetrics.from_json(text, "run/metrics.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone/metrics\.json"):
        RunMetrics.read(tmp_path / "gone/metrics.json")


def test_the_schema_needs_no_torch() -> None:
    code = "import sys, detr_ft.evaluation.metrics; print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
