"""Sentences and facts about a run: verdict, remarks on its metrics, and its data."""

from __future__ import annotations

from datasets import Dataset

from detr_ft.data.box_frame import count_boxes
from detr_ft.data.schema import boxes_of_classes
from detr_ft.evaluation.detection_matching import AREAS
from detr_ft.evaluation.metrics import DataFacts, EvaluationMetrics

_WIDE_INTERVAL = 0.1
# The envelope of a precision curve takes the best of few noisy points, so precision is too high on average below this.
_FEW_OBJECTS = 30
_MIN_MAP_50_LOST = 0.01
_REMEDIES = {
    "classification": "wrong classes: boxes fit; check which classes are confused, and the labels",
    "localisation": "boxes that do not fit: a larger size or a higher weight of the box losses may help",
    "both": "detections with a wrong class and box: more data help",
    "duplicate": "duplicates: the matching has not settled",
    "background": "detections where no object is: raise the threshold, add images without objects, or check for objects without a label",
    "missed": "missed objects: check how small they are, and whether the model has enough queries",
}


def remarks(metrics: EvaluationMetrics) -> list[str]:
    """Return at most five sentences, the most important first."""
    sentences = (_interval(metrics), _errors(metrics), _classes(metrics), _sizes(metrics), _thresholds(metrics))
    return [sentence for sentence in sentences if sentence]


def _interval(metrics: EvaluationMetrics) -> str:
    interval = metrics.intervals.get("map")
    if interval is None:
        return ""
    wide = " Evaluate on more images for a narrower interval." if interval.high - interval.low > _WIDE_INTERVAL else ""
    return (
        f"On other sets of {metrics.images} such images, mAP would average between {interval.low:.3f} and {interval.high:.3f} "
        f"(95% interval).{wide}{_few_objects(metrics)}"
    )


def _few_objects(metrics: EvaluationMetrics) -> str:
    counts = [row.count for row in metrics.per_class.values() if row.map is not None]
    few = sum(count < _FEW_OBJECTS for count in counts)
    if not few:
        return ""
    return f" {few} of {len(counts)} classes have fewer than {_FEW_OBJECTS} objects here; their metrics are too high on average, so expect less on a larger set."


def _errors(metrics: EvaluationMetrics) -> str:
    costs = {kind: error.map_50_lost for kind, error in metrics.errors.items()}
    worst = max(costs, key=lambda kind: costs[kind], default="")
    if costs.get(worst, 0.0) < _MIN_MAP_50_LOST:
        return ""
    return f"Most mAP50 ({costs[worst]:.3f}) is lost by {_REMEDIES[worst]}."


def _classes(metrics: EvaluationMetrics) -> str:
    maps = {name: row.map for name, row in metrics.per_class.items() if row.map is not None}
    if len(maps) < 2:
        return ""
    worst, best = (pick(maps, key=lambda name: maps[name]) for pick in (min, max))
    return (
        f"The best class is {best} (mAP {maps[best]:.3f}, {metrics.per_class[best].count} objects), "
        f"the worst {worst} ({maps[worst]:.3f}, {metrics.per_class[worst].count} objects)."
    )


def _sizes(metrics: EvaluationMetrics) -> str:
    small, large = metrics.map_small, metrics.map_large
    if small is None or large is None or small > 0.5 * large:
        return ""
    return f"Small objects are much harder than large ones (mAP {small:.3f} against {large:.3f}); a larger data.longest_edge may help."


def _thresholds(metrics: EvaluationMetrics) -> str:
    thresholds = [choice.threshold for choice in metrics.thresholds.values() if choice.f1 > 0]
    if not thresholds:
        return ""
    low, high = min(thresholds), max(thresholds)
    between = f"between {low:.2f} and {high:.2f}" if high - low > 0.05 else f"at about {low:.2f}"
    return f"The best thresholds of the classes lie {between}."


def data_facts(train: Dataset, validation: Dataset, skipped: int) -> DataFacts:
    """Return the numbers of images and boxes, by class and size, and of skipped images."""
    boxes = boxes_of_classes(train)
    return DataFacts(
        train_images=len(train),
        held_out_images=len(validation),
        skipped_images=skipped,
        train_boxes=sum(boxes.values()),
        boxes=str(count_boxes(train)),
        per_class=boxes,
        sizes=_boxes_by_size(train),
    )


def _boxes_by_size(split: Dataset) -> dict[str, int]:
    """Return the numbers of small, medium and large boxes by COCO's limits, in original pixels."""
    areas = [area for row in split.with_format(None).select_columns(["objects"]) for area in row["objects"]["area"]]
    return {name: sum(low <= area < high for area in areas) for name, (low, high) in AREAS.items() if name != "all"}


def describe_data(source: str, train: Dataset, validation: Dataset) -> dict[str, str]:
    """Return the data of a run as facts for its report."""
    boxes = boxes_of_classes(train)
    return {
        "data": source,
        "training": f"{len(train):,} images, {sum(boxes.values()):,} boxes of {len(boxes)} classes",
        "held out": f"{len(validation):,} images",
        "training boxes": ", ".join(f"{name} {count:,}" for name, count in boxes.items()),
    }
