"""What an evaluation means, in sentences."""

from __future__ import annotations

from detr_ft.evaluation.assessment import Assessment

_WIDE = 0.1  # an interval
# Objects of a class, below which its precision reads too high on average: the envelope of a precision curve takes the best of
# few noisy points.
_FEW = 30
_LOSS = {
    "classification": "boxes fit and their class is wrong: look at which classes are taken for which, and at the labels",
    "localisation": "objects are found with boxes that don't fit: train longer, at a larger size, or raise the weight of the box losses",
    "both": "class and place of detections are off: train longer, or on more data",
    "duplicate": "objects are found several times: the matching has not settled, train longer",
    "background": "things are found where nothing is: raise the threshold, add images without objects, or look for objects that were not labelled",
    "missed": "objects are not found at all: look at how small they are, and whether the model has enough queries",
}


def remarks(told: Assessment) -> list[str]:
    """The most important things about an evaluation, in words, the first first; at most five."""
    return [one for one in (_sure(told), _lost(told), _classes(told), _sizes(told), _scores(told)) if one]


def _sure(told: Assessment) -> str:
    interval = told.intervals["map"]
    if interval is None:
        return ""
    words = f"Measured on other sets of {told.marks.num_images} such images, mAP would average between {interval.low:.3f} and {interval.high:.3f} (95 % interval)."
    wide = interval.high - interval.low > _WIDE
    return words + (" That is wide: more images to measure on would tell more." if wide else "") + _few(told)


def _few(told: Assessment) -> str:
    counts = [one["count"] for one in told.figures["per_class"].values() if one["map"] is not None]
    few = sum(count < _FEW for count in counts)
    if not few:
        return ""
    return f" {few} of {len(counts)} classes have fewer than {_FEW} objects here: figures of so few read too high on average, so on a larger set expect less."


def _lost(told: Assessment) -> str:
    kind, cost = max(told.costs.items(), key=lambda one: one[1])
    if cost < 0.01:
        return ""
    return f"Most is lost by {kind} errors ({cost:.3f} of mAP50): {_LOSS[kind]}."


def _classes(told: Assessment) -> str:
    known = {name: one for name, one in told.figures["per_class"].items() if one["map"] is not None}
    if len(known) < 2:
        return ""
    worst, best = (pick(known, key=lambda name: known[name]["map"]) for pick in (min, max))
    return (
        f"Best is {best} (mAP {known[best]['map']:.3f}, {known[best]['count']} objects), "
        f"worst {worst} ({known[worst]['map']:.3f}, {known[worst]['count']} objects)."
    )


def _sizes(told: Assessment) -> str:
    small, large = told.figures["map_small"], told.figures["map_large"]
    if small is None or large is None or small > 0.5 * large:
        return ""
    return f"Small objects are much harder than large ones (mAP {small:.3f} against {large:.3f}): a larger data.longest_edge may help."


def _scores(told: Assessment) -> str:
    thresholds = [one.threshold for one in told.thresholds.values() if one.f1 > 0]
    if not thresholds:
        return ""
    low, high = min(thresholds), max(thresholds)
    between = f"between {low:.2f} and {high:.2f}" if high - low > 0.05 else f"at about {low:.2f}"
    return f"The best thresholds of the classes lie {between}."
