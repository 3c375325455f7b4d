"""The most important facts of an evaluation, in sentences."""

from __future__ import annotations

from detr_ft.evaluation.metrics import EvaluationMetrics

_WIDE_INTERVAL = 0.1
# The envelope of a precision curve takes the best of few noisy points, so precision is too high on average below this.
_FEW_OBJECTS = 30
_MIN_MAP_50_LOST = 0.01
_REMEDIES = {
    "classification": "wrong classes: boxes fit; check which classes are confused, and the labels",
    "localisation": "boxes that do not fit: train longer, at a larger size, or raise the weight of the box losses",
    "both": "detections with a wrong class and box: train longer, or on more data",
    "duplicate": "duplicates: train longer, until the matching has settled",
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
        f"(95 % interval).{wide}{_few_objects(metrics)}"
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
