"""A defect, where it is, and what it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from detr_ft.data.doctor.finding_kinds import KINDS, LEVELS, Level


@dataclass(frozen=True)
class Finding:
    """One defect: `image` names the file, `annotation` is the box's own id.

    `row` is the image's place in its split and `place` the box's among the image's objects, from 0; `like` is split and
    row of another image that this one is like. `sort` tells apart what a kind has several of.
    """

    kind: str
    level: Level
    split: str
    image: str | None
    image_id: int | None
    annotation: int | None
    message: str
    remedy: str
    row: int | None = None
    place: int | None = None
    like: tuple[str, int] | None = None
    sort: str | None = None

    @property
    def where(self) -> str:
        """Split, file, image id and annotation id, as far as there are any."""
        box = "" if self.annotation is None else f", annotation {self.annotation}"
        return (self.split if self.image is None else f"{self.split}, {self.image}") + box

    def __str__(self) -> str:
        return f"{self.level}: {self.kind}: {self.where}: {self.message}"


def finding(
    kind: str,
    split: str,
    message: str,
    *,
    image: str | None = None,
    image_id: int | None = None,
    annotation: int | None = None,
    row: int | None = None,
    place: int | None = None,
    like: tuple[str, int] | None = None,
    sort: str | None = None,
) -> Finding:
    """A finding with the level and the remedy of its kind."""
    known = KINDS[kind]
    return Finding(
        kind, known.level, split, image, image_id, annotation, message, known.mend, row, place, like, sort
    )  # fmt: skip


def by_kind(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """The findings of each kind that occurs: errors first, then warnings, then what is good to know."""
    found = list(findings)
    ordered = sorted(KINDS, key=lambda kind: LEVELS.index(KINDS[kind].level))
    grouped = {kind: [one for one in found if one.kind == kind] for kind in ordered}
    return {kind: some for kind, some in grouped.items() if some}


def by_sort(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """The findings of each sort, the most frequent first; those of none are left out."""
    grouped: dict[str, list[Finding]] = {}
    for one in findings:
        if one.sort is not None:
            grouped.setdefault(one.sort, []).append(one)
    return dict(sorted(grouped.items(), key=lambda pair: -len(pair[1])))
