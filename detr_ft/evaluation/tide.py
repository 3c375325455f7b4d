"""The six kinds of errors of TIDE, and the mAP50 that each costs (Bolya et al., ECCV 2020, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from detr_ft.evaluation.coco import interpolated
from detr_ft.evaluation.detection_matching import (
    THRESHOLDS,
    Bools,
    DetectionMatches,
    Floats,
    GroundTruthArrays,
    Ints,
    Pairs,
    overlapping_pairs,
)

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
_CLASSIFICATION, _LOCALISATION, _BOTH, _DUPLICATE, _BACKGROUND = range(5)
CORRECT = -1
_FOREGROUND_IOU, _BACKGROUND_IOU = float(THRESHOLDS[0]), 0.1  # as in the paper


@dataclass(frozen=True, eq=False)
class Errors:
    """The errors of a matched set at IoU 0.5.

    `kind [D]` is an index into `KINDS`, or CORRECT for a detection that is correct or does not count. `near [D]` is the object
    that a detection with a wrong class or box is closest to, or -1. `missed [P]` are the objects that no detection is matched
    to or closest to.
    """

    matches: DetectionMatches
    kind: Ints
    near: Ints
    missed: Bools

    @cached_property
    def counts(self) -> dict[str, int]:
        """The number of errors of each kind."""
        of_detections = np.bincount(self.kind[self.kind != CORRECT], minlength=len(KINDS) - 1).tolist()
        return dict(zip(KINDS, [*of_detections, int(self.missed.sum())], strict=True))

    def costs(self) -> dict[str, float]:
        """Return by how much mAP50 would rise, as a fraction of 1, without the errors of each kind.

        A detection with a wrong class or box becomes correct; if its object is matched already, or a better detection
        is closest to it, the detection is removed, as other false alarms are. Missed objects are removed from the
        truth.
        """
        correct, counts = self._outcomes
        counted = np.flatnonzero(counts)
        baseline = self._map_50(counted, self.matches.detections.label, correct, self._objects)
        return {kind: max(0.0, self._without(index) - baseline) for index, kind in enumerate(KINDS)}

    @cached_property
    def _outcomes(self) -> tuple[Bools, Bools]:
        correct, counts = self.matches.outcomes("all")
        return correct[0], counts[0]

    @cached_property
    def _objects(self) -> Ints:
        return self.matches.objects_per_class()

    def _without(self, kind: int) -> float:
        correct, counts = self._outcomes
        labels = self.matches.detections.label
        if KINDS[kind] == "missed":
            removed = np.bincount(self.matches.objects.label[self.missed], minlength=len(self.matches.names))
            return self._map_50(np.flatnonzero(counts), labels, correct, self._objects - removed)
        of_kind = self.kind == kind
        corrected = of_kind & self._best_for_its_object
        labels = labels.copy()
        labels[corrected] = self.matches.objects.label[self.near[corrected]]
        return self._map_50(np.flatnonzero(counts & (~of_kind | corrected)), labels, correct | corrected, self._objects)

    @cached_property
    def _best_for_its_object(self) -> Bools:
        """`[D]`: the best detection that is closest to an object which no other is matched to."""
        closest = np.flatnonzero(self.near >= 0)
        closest = closest[~_matched(self.matches)[self.near[closest]]]
        by_score = closest[np.argsort(-self.matches.detections.score[closest], kind="stable")]
        _, first = np.unique(self.near[by_score], return_index=True)
        best = np.zeros(len(self.near), bool)
        best[by_score[first]] = True
        return best

    def _map_50(self, rows: Ints, labels: Ints, correct: Bools, objects: Ints) -> float:
        """Return mAP50 of some detections; classes without objects and detections are left out."""
        score = self.matches.detections.score
        values = []
        for label in np.flatnonzero(self._objects):
            own = rows[labels[rows] == label]
            if not objects[label]:  # all were missed, and are removed
                values += [0.0] if len(own) else []
                continue
            own = own[np.argsort(-score[own], kind="stable")]
            hits = np.cumsum(correct[own], dtype=np.float64)[None]
            values.append(float(interpolated(hits, np.arange(1.0, len(own) + 1)[None], objects[label]).mean()))
        return float(np.mean(values)) if values else 0.0


def find_errors(matches: DetectionMatches) -> Errors:
    """Return the kind of each wrong detection, by the first of the paper's rules that applies.

    Its box is off (IoU 0.1 to 0.5 with an object of its class); its class is wrong (0.5 or more with an object of
    another); the object is matched already; there is no object (0.1 or less); or class and box are off.
    """
    correct, counts = matches.outcomes("all")
    wrong = counts[0] & ~correct[0]
    detections, objects = matches.detections, matches.objects
    pairs = _without_crowds(overlapping_pairs(detections, objects, _BACKGROUND_IOU, same_class=False), objects)
    same = detections.label[pairs.detection] == objects.label[pairs.object]
    number = len(detections.score)
    own, own_object = _largest_iou(pairs, same, number)
    other, other_object = _largest_iou(pairs, ~same, number)
    duplicate, _ = _largest_iou(pairs, same & _matched(matches)[pairs.object], number)
    box_off = (own >= _BACKGROUND_IOU) & (own <= _FOREGROUND_IOU)
    kind = np.select(
        [
            ~wrong,
            box_off,
            other >= _FOREGROUND_IOU,
            duplicate >= _FOREGROUND_IOU,
            np.maximum(own, other) <= _BACKGROUND_IOU,
        ],
        [CORRECT, _LOCALISATION, _CLASSIFICATION, _DUPLICATE, _BACKGROUND],
        _BOTH,
    )
    near = np.select([kind == _LOCALISATION, kind == _CLASSIFICATION], [own_object, other_object], -1)
    reached = np.zeros(len(objects.label), bool)
    reached[near[near >= 0]] = True
    return Errors(matches, kind, near, matches.counted("all") & ~_matched(matches) & ~reached)


def _matched(matches: DetectionMatches) -> Bools:
    """`[P]`: the objects that a detection is matched to at IoU 0.5."""
    partner = matches.partner("all")[0]
    matched = np.zeros(len(matches.objects.label) + 1, bool)  # one more, for unmatched detections
    matched[partner] = True
    return matched[:-1]


def _without_crowds(pairs: Pairs, objects: GroundTruthArrays) -> Pairs:
    keep = ~objects.crowd[pairs.object]
    return Pairs(pairs.detection[keep], pairs.object[keep], pairs.iou[keep])


def _largest_iou(pairs: Pairs, among: Bools, number: int) -> tuple[Floats, Ints]:
    """`[D]` twice: the largest IoU of each detection among some pairs, or 0, and its object, or -1."""
    iou, index = np.zeros(number), np.full(number, -1)
    rows = pairs.detection[among]
    # Pairs of a detection are sorted by IoU: the last that is written is the largest.
    iou[rows], index[rows] = pairs.iou[among], pairs.object[among]
    return iou, index
