"""The first sentences on a run: how far it came, what the model finds, and what to do next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detr_ft.evaluation.metrics import ClassMetrics, EvaluationMetrics, Interval, ThresholdChoice, TrainingEnd
from detr_ft.report.headline import headline, next_steps, within_noise

METRICS = EvaluationMetrics(
    map=0.4,
    images=30,
    per_class={name: ClassMetrics(map=0.4, count=count) for name, count in (("cup", 90), ("fork", 10))},
    thresholds={"cup": ThresholdChoice(0.5, 0.9, 0.5, 0.64), "fork": ThresholdChoice(0.4, 0.5, 1.0, 0.67)},
    intervals={"map": Interval(0.35, 0.45)},
)
WHOLE, CUT = TrainingEnd(10, 10), TrainingEnd(3.2, 60, "time limit")


def test_objects_and_detections_are_counted_over_the_classes() -> None:
    # 45 of 90 cups and 10 of 10 forks are found; 50 detections of cups and 20 of forks.
    assert "finds 55 of 100 objects, and 79 of 100 detections are right" in headline(METRICS)
    assert headline(METRICS).endswith(". Its mAP is 0.400, 95 % interval 0.350 to 0.450.")


def test_a_cut_run_begins_with_that() -> None:
    text = headline(METRICS, end=CUT)
    assert text.startswith("This run was cut by its time limit after 3.2 of 60 epochs.")
    assert "early stopping after 4 of 60 epochs" in headline(METRICS, end=TrainingEnd(4, 60, "early stopping"))
    assert headline(METRICS, end=WHOLE) == headline(METRICS)


@pytest.mark.parametrize("end", [None, CUT])
def test_there_are_two_sentences(end: TrainingEnd | None) -> None:
    assert headline(METRICS, end=end).rstrip(".").count(". ") == 1


def test_differences_within_noise_are_called_equal() -> None:
    assert "equal to 0.360 before" in headline(METRICS, before={"map": 0.36})
    assert "from 0.100 before" in headline(METRICS, before={"map": 0.1})
    assert (within_noise(METRICS, 0.44), within_noise(METRICS, 0.46)) == (True, False)


def test_images_without_objects_have_no_metrics() -> None:
    assert "contain no objects" in headline(EvaluationMetrics())


def steps(end: TrainingEnd, *maps: float, images: int = 1000) -> list[str]:
    return next_steps(replace(METRICS, map=maps[-1] if maps else None), end, maps, images, "runs/mine")


def test_next_steps_follow_from_the_run() -> None:
    assert "--resume" in steps(CUT, 0.4)[0]
    assert "num_train_epochs=20" in steps(WHOLE, 0.1, 0.2, 0.3, 0.4)[0]
    assert steps(WHOLE, 0.1, 0.38, 0.4, 0.4) == []
    assert "50 images" in steps(WHOLE, 0.4, images=50)[0]
    assert steps(replace(WHOLE, diagnosis=["frozen"]), 0.0, images=50) == ["frozen"]


def test_a_cut_run_is_not_called_too_short() -> None:
    causes = ["too short: 2 steps are too few for a diagnosis", "frozen"]
    assert steps(replace(CUT, diagnosis=causes), 0.0)[1:] == ["frozen"]
    assert steps(replace(WHOLE, diagnosis=causes), 0.0) == causes
