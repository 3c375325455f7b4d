"""Findings of the doctor, with their location."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from detr_ft.data.doctor.kinds import KINDS, LEVELS, Level
from detr_ft.data.sources.problems import pattern_of


@dataclass(frozen=True)
class Finding:
    """One defect with its location: `image` is the file, `annotation` the id of the box.

    `row` is the index of the image in its split and `place` that of the box among the image's objects, from 0; `like` is
    split and row of another image that this one is like. `cause` is the same for findings of one kind that have one cause.
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
    cause: str = ""

    @property
    def where(self) -> str:
        """Split, file with image id, and annotation id, as far as they exist."""
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
    cause: str = "",
) -> Finding:
    """Return a finding with the level and the remedy of its kind."""
    level, remedy = KINDS[kind].level, KINDS[kind].remedy
    return Finding(
        kind,
        level,
        split,
        image,
        image_id,
        annotation,
        message,
        remedy,
        row,
        place,
        like,
        cause or pattern_of(f": {message}"),
    )


def by_kind(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Return the findings of each kind that occurs: errors first, then warnings, then notes."""
    grouped: dict[str, list[Finding]] = {}
    for finding in findings:
        grouped.setdefault(finding.kind, []).append(finding)
    ordered = sorted(KINDS, key=lambda kind: LEVELS.index(KINDS[kind].level))
    return {kind: grouped[kind] for kind in ordered if kind in grouped}


def by_cause(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Return the findings of each cause, the most frequent first."""
    grouped: dict[str, list[Finding]] = {}
    for finding in findings:
        grouped.setdefault(finding.cause, []).append(finding)
    return sorted(grouped.values(), key=len, reverse=True)
