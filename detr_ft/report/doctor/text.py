"""The diagnosis in a few lines, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from detr_ft.data.doctor.diagnosis import Diagnosis
from detr_ft.data.doctor.finding import KINDS, Finding, by_kind, by_sort
from detr_ft.data.doctor.statistics import SplitSummary

_CLASSES = 12


def describe(diagnosis: Diagnosis, limit: int = 3) -> str:
    """Return a line for each split, one for each kind of finding with its number and `limit` examples, the advice, and the verdict."""
    lines = [_split_line(name, one) for name, one in diagnosis.splits.items()]
    lines.append(f"read and decoded at {diagnosis.images_per_second:.0f} images a second on this machine")
    for kind, some in by_kind(diagnosis.findings).items():
        lines.extend(_kind_lines(kind, some, limit))
        if kind == "leakage":
            lines.extend(f"  in all, {told}" for told in leakage(diagnosis))
    lines.extend(f"advice: {one}" for one in diagnosis.advice)
    return "\n".join([*lines, verdict(diagnosis)])


def verdict(diagnosis: Diagnosis) -> str:
    """One sentence: whether the data can be trained on."""
    counts = {level: sum(one.level == level for one in diagnosis.findings) for level in ("error", "warning", "info")}
    if not diagnosis.findings:
        return "no findings: the data can be trained on"
    told = (
        f"{_many(counts['error'], 'error')}, {_many(counts['warning'], 'warning')} and {_many(counts['info'], 'note')}"
    )
    if counts["error"]:
        return f"{told}: training would refuse this data or learn it wrongly; mend the errors first (exit status 2)"
    return f"{told}: the data can be trained on"


def leakage(diagnosis: Diagnosis) -> Iterator[str]:
    """How much of what is held out was seen in training, where that is any."""
    for split, count in diagnosis.leaked.items():
        if count:
            images = diagnosis.splits[split].images
            before = list(diagnosis.splits)[: list(diagnosis.splits).index(split)]
            share = f"{count} of {images} images of {split} ({count / images:.0%})"
            yield f"{share} are the same as images of {' or '.join(before)}, or look like them"


def sorts(some: list[Finding]) -> Iterator[str]:
    """Of which sorts the findings of a kind are, how many each, and where the first is."""
    for sort, of_it in by_sort(some).items():
        yield f"{len(of_it)} {sort}; the first is {of_it[0].where}"


def _kind_lines(kind: str, some: list[Finding], limit: int) -> Iterator[str]:
    known = KINDS[kind]
    yield f"{known.level}: {kind}: {len(some)}. To mend: {known.remedy}"
    yield from (f"  of these, {told}" for told in sorts(some))
    for one in some[:limit]:
        yield f"  {one.where}: {one.message}"
    if len(some) > limit:
        yield f"  ... and {len(some) - limit} more"


def _split_line(name: str, one: SplitSummary) -> str:
    common = sorted(one.boxes_per_class.items(), key=lambda pair: -pair[1])
    classes = ", ".join(f"{label} {count}" for label, count in common[:_CLASSES])
    rest = f" and {len(common) - _CLASSES} more" if len(common) > _CLASSES else ""
    return f"{name}: {one.images} images ({one.images_without_objects} without objects), {one.boxes} boxes: {classes}{rest}"


def _many(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
