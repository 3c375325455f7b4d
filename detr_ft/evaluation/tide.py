"""What went wrong, and what it costs: the six errors of TIDE (Bolya et al., ECCV 2020, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from detr_ft.evaluation.detection_matching import (
    THRESHOLDS,
    Bools,
    DetectionMatches,
    Floats,
    GroundTruthArrays,
    Ints,
    Pairs,
    meeting,
)
from detr_ft.evaluation.precision_recall import interpolated

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
_CLASSIFICATION, _LOCALISATION, _BOTH, _DUPLICATE, _BACKGROUND = range(5)
RIGHT = -1
_HIT, _NEAR = float(THRESHOLDS[0]), 0.1  # the foreground's and the background's IoU, as in the paper


@dataclass(frozen=True, eq=False)
class Errors:
    """The errors of a marked set, at IoU 0.5.

    `kind [D]` is a place in `KINDS`, or RIGHT where a detection is right or doesn't count; `near [D]` the object that
    one of the wrong class or place is meant for, else -1; `missed [P]` the objects that no detection takes or is meant for.
    """

    marks: DetectionMatches
    kind: Ints
    near: Ints
    missed: Bools

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        of_detections = np.bincount(self.kind[self.kind != RIGHT], minlength=len(KINDS) - 1).tolist()
        return dict(zip(KINDS, [*of_detections, int(self.missed.sum())], strict=True))

    def costs(self) -> dict[str, float]:
        """By how much mAP50 would rise, as a fraction of 1, if there were no error of one kind, each by itself.

        A detection of the wrong class or place is put right, unless its object has been taken or a better one is meant
        for it; it goes then, as other false alarms do. Missed objects are taken out of the truth.
        """
        right, counts = self._marked
        everything = np.flatnonzero(counts)
        as_it_is = self._precision(everything, self.marks.found.label, right, self._objects)
        return {kind: max(0.0, self._without(place) - as_it_is) for place, kind in enumerate(KINDS)}

    @cached_property
    def _marked(self) -> tuple[Bools, Bools]:
        right, counts = self.marks.marked("all")
        return right[0], counts[0]

    @cached_property
    def _objects(self) -> Ints:
        return np.bincount(self.marks.objects.label[self.marks.counted("all")], minlength=len(self.marks.names))

    def _without(self, kind: int) -> float:
        right, counts = self._marked
        labels = self.marks.found.label
        if KINDS[kind] == "missed":
            gone = np.bincount(self.marks.objects.label[self.missed], minlength=len(self.marks.names))
            return self._precision(np.flatnonzero(counts), labels, right, self._objects - gone)
        of_kind = self.kind == kind
        mended = of_kind & self._first_for_its_object
        labels = labels.copy()
        labels[mended] = self.marks.objects.label[self.near[mended]]
        return self._precision(np.flatnonzero(counts & (~of_kind | mended)), labels, right | mended, self._objects)

    @cached_property
    def _first_for_its_object(self) -> Bools:
        """`[D]`: the likeliest detection that is meant for an object which no other takes."""
        meant = np.flatnonzero(self.near >= 0)
        meant = meant[~_taken(self.marks)[self.near[meant]]]
        by_score = meant[np.argsort(-self.marks.found.score[meant], kind="stable")]
        _, first = np.unique(self.near[by_score], return_index=True)
        chosen = np.zeros(len(self.near), bool)
        chosen[by_score[first]] = True
        return chosen

    def _precision(self, rows: Ints, labels: Ints, right: Bools, objects: Ints) -> float:
        """mAP50 of these detections; classes without objects and detections are left out."""
        score = self.marks.found.score
        values = []
        for label in np.flatnonzero(self._objects):
            mine = rows[labels[rows] == label]
            if not objects[label]:  # all were missed, and are no longer asked for
                values += [0.0] if len(mine) else []
                continue
            mine = mine[np.argsort(-score[mine], kind="stable")]
            hits = np.cumsum(right[mine], dtype=np.float64)[None]
            values.append(float(interpolated(hits, np.arange(1.0, len(mine) + 1)[None], objects[label]).mean()))
        return float(np.mean(values)) if values else 0.0


def errors_of(marks: DetectionMatches) -> Errors:
    """Sort the detections of a marked set that are wrong, each by the first of the paper's rules that fits.

    Its place is off (IoU 0.1 to 0.5 with an object of its class); its class is (0.5 or more with one of another); the
    object is another's already; there is nothing (0.1 or less); or place and class are off.
    """
    right, counts = marks.marked("all")
    wrong = counts[0] & ~right[0]
    pairs = _without_crowds(meeting(marks.found, marks.objects, _NEAR, same_class=False), marks.objects)
    same = marks.found.label[pairs.found] == marks.objects.label[pairs.object]
    number = len(marks.found.score)
    own, own_object = _best(pairs, same, number)
    other, other_object = _best(pairs, ~same, number)
    duplicate, _ = _best(pairs, same & _taken(marks)[pairs.object], number)
    place = (own >= _NEAR) & (own <= _HIT)
    kind = np.select(
        [~wrong, place, other >= _HIT, duplicate >= _HIT, np.maximum(own, other) <= _NEAR],
        [RIGHT, _LOCALISATION, _CLASSIFICATION, _DUPLICATE, _BACKGROUND],
        _BOTH,
    )
    near = np.select([kind == _LOCALISATION, kind == _CLASSIFICATION], [own_object, other_object], -1)
    meant = np.zeros(len(marks.objects.label), bool)
    meant[near[near >= 0]] = True
    return Errors(marks, kind, near, marks.counted("all") & ~_taken(marks) & ~meant)


def _taken(marks: DetectionMatches) -> Bools:
    """`[P]`: the objects that a detection takes at IoU 0.5."""
    partner = marks.partner("all")[0]
    taken = np.zeros(len(marks.objects.label) + 1, bool)  # one more, for detections that take none
    taken[partner] = True
    return taken[:-1]


def _without_crowds(pairs: Pairs, objects: GroundTruthArrays) -> Pairs:
    keep = ~objects.crowd[pairs.object]
    return Pairs(pairs.found[keep], pairs.object[keep], pairs.iou[keep])


def _best(pairs: Pairs, among: Bools, number: int) -> tuple[Floats, Ints]:
    """`[D]` twice: the largest IoU of each detection among some pairs, 0 without one, and with which object, or -1."""
    iou, which = np.zeros(number), np.full(number, -1)
    rows = pairs.found[among]
    # Those of a detection come by IoU: the last that is written is the largest.
    iou[rows], which[rows] = pairs.iou[among], pairs.object[among]
    return iou, which
