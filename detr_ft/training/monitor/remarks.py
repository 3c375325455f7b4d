"""What the figures of the matching mean, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNSTEADY = 0.3  # of the targets change their query between evaluations
_ENOUGH = 3  # times as many objects as queries, before a query that took none says anything


def judge(row: Mapping[str, Any], sample: Mapping[str, float], queries: int, done: float) -> list[str]:
    """Remarks on a row of the log and on the figures of the sample, after the share `done` of a run; often none."""
    remarks = [
        _left_out(row.get("left_out", 0.0)),
        _one_sided({name: value for name, value in row.items() if name.startswith("gradient_share_")}),
        _silent(row),
        _unsteady(sample.get("changed_since_last", 0.0), done),
        _idle(sample, queries),
    ]
    return [remark for remark in remarks if remark]


def _left_out(share: float) -> str:
    return f"{100 * share:.2g} % of the objects have no query: the model has too few for such images" if share else ""


def _one_sided(shares: Mapping[str, float]) -> str:
    name, share = max(shares.items(), key=lambda one: one[1], default=("", 0.0))
    if len(shares) < 2 or share < 0.95:
        return ""
    return f"{name.removeprefix('gradient_share_')} makes {100 * share:.0f} % of the gradient: the others hardly count; raise their weights"


def _silent(row: Mapping[str, Any]) -> str:
    """Boxes that fit while every query says no-object."""
    if row.get("no_object_share", 0.0) < 0.999 or row.get("matched_iou", 0.0) < 0.5:
        return ""
    return "boxes fit, but every query says no-object: go on, or lower eos_coef of the class loss"


def _unsteady(changed: float, done: float) -> str:
    if changed < _UNSTEADY or done < 0.5:
        return ""
    return f"{100 * changed:.0f} % of the objects have another query than at the last evaluation: the matching is not settled yet"


def _idle(sample: Mapping[str, float], queries: int) -> str:
    share, objects = sample.get("queries_never_used", 0.0), int(sample.get("objects_looked_at", 0))
    if share < 0.5 or objects < _ENOUGH * queries:
        return ""
    return f"{100 * share:.0f} % of the {queries} queries took none of {objects} objects: fewer would do"
