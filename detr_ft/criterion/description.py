"""A criterion in a paragraph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass

from detr_ft.criterion.base import Cost, Loss, Matcher
from detr_ft.criterion.matchers import CostMatcher, LayerMatcher, MatcherSchedule


def in_words(matcher: Matcher, losses: Sequence[Loss]) -> str:
    """Three sentences at most: what is matched by, what is scored by, and what is only logged."""
    trained = [loss for loss in losses if loss.weight]
    logged = [loss for loss in losses if not loss.weight]
    sentences = [f"Matched by {_matcher(matcher)}.", f"Scored by {_sum(trained)}."]
    if logged:
        sentences.append(f"Only logged: {', '.join(type(loss).__name__ + _parameters(loss) for loss in logged)}.")
    return "\n".join(sentences)


def _matcher(matcher: Matcher) -> str:
    if isinstance(matcher, MatcherSchedule):
        ends = [f" up to epoch {start}" for start in matcher.starts[1:]]
        turns = zip(matcher.matchers, [*ends, ""], strict=True)
        return ", then by ".join(_matcher(one) + end for one, end in turns)
    if isinstance(matcher, LayerMatcher):
        return f"{_matcher(matcher.last)} in the last layer and {_matcher(matcher.auxiliary)} in the others"
    if isinstance(matcher, CostMatcher):
        return f"{type(matcher).__name__}{_parameters(matcher)} on {_sum(matcher.costs)}"
    return repr(matcher)


def _sum(terms: Sequence[Cost | Loss]) -> str:
    return " + ".join(f"{term.weight:g} x {type(term).__name__}{_parameters(term)}" for term in terms)


def _parameters(term: object) -> str:
    """The parameters beside weight and costs that differ from `None`, in brackets."""
    if not is_dataclass(term):
        return ""
    shown = [
        f"{field.name} {getattr(term, field.name)}"
        for field in fields(term)
        if field.name not in {"weight", "costs"} and getattr(term, field.name) not in (None, _neutral(field.default))
    ]
    return f" ({', '.join(shown)})" if shown else ""


def _neutral(default: object) -> object:
    """A parameter that is 0 unless somebody asks for it, such as label smoothing, needs no mention at 0."""
    return default if default is not MISSING and default == 0 else None
