"""Find the images of Pascal VOC's XML files, by the file name, folder and path that they state."""

from __future__ import annotations

import logging
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detr_ft.data.sources.image_finder import (
    ImageFinder,
    first_file,
    folder_of_images,
    path_tails,
    plain_path,
    without_drive,
)

_KEYS = ("filename", "folder", "path")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StatedImage:
    """The image that an XML file states.

    `name` is the file's, `path` is a file name with folders from the data's root, and `hints` are paths of another machine or
    an earlier copy, which end with the name.
    """

    name: str = ""
    path: str = ""
    hints: tuple[str, ...] = ()

    @classmethod
    def read(cls, root: ElementTree.Element) -> StatedImage:
        """Return the image in `<filename>`, `<folder>` and `<path>`, if that has the same file name."""
        written = (root.findtext("filename") or "").strip()
        stated, folder, path = (plain_path((root.findtext(key) or "").strip()) for key in _KEYS)
        name = PurePosixPath(stated or path).name
        is_absolute = bool(re.match(r"[\\/]|[A-Za-z]:|\w+://", written))
        paths = (
            stated if is_absolute else "",
            path if PurePosixPath(path).name == name else "",
            f"{folder}/{name}" if folder else "",
        )
        hints = tuple(dict.fromkeys(without_drive(text) for text in paths if len(PurePosixPath(text).parts) > 1))
        return cls(name, stated if "/" in stated and not is_absolute else "", hints if name else ())


class VocImages:
    """Finds the images of XML files, and records those that have another name than stated."""

    def __init__(self, origin: Path, images: Path | None) -> None:
        self.origin = origin
        self._images = images
        self.finder = ImageFinder(folder_of_images(origin), images=images)
        self._substitutes: list[tuple[Path, str, Path]] = []

    def find(self, annotation: Path, root: ElementTree.Element | None, problems: list[str]) -> Path:
        """Return the image that an XML file states, else one with that stem or the stem of the XML file.

        If there is none, return the path where it is expected. Several images that fit equally well are a problem, which
        is added to `problems`.
        """
        stated = StatedImage() if root is None else StatedImage.read(root)
        folders = [self._images] if self._images else _image_folders(annotation)
        path = self._locate(annotation, stated, folders, problems)
        if path is None:
            folder = next(filter(self.finder.has_images, folders), folders[0])
            expected = folder / (stated.name or f"{annotation.stem}.jpg")
            self.finder.note_missing(str(expected))
            return expected
        self.finder.note_found()
        if stated.name not in ("", path.name, path.stem):
            self._substitutes.append((annotation, stated.name, path))
        return path

    def log_substitutes(self) -> None:
        """Log the number of files whose stated image is missing and was replaced."""
        if self._substitutes:
            annotation, stated, path = self._substitutes[0]
            log.warning(
                "%s: %d XML files name a missing image, and the image with the most similar name is used: "
                "%s names %s, used is %s. Correct <filename> if that is wrong",
                self.origin, len(self._substitutes), annotation, stated, path,
            )  # fmt: skip

    def _locate(
        self, annotation: Path, stated: StatedImage, folders: Sequence[Path], problems: list[str]
    ) -> Path | None:
        """Return the image at the stated path, else in the usual folders or at a hint, else below the root."""
        root = _around_annotations(annotation)[0]
        bases = folders if self._images else [*folders, root, root / "images", self.finder.root]
        exact = _at_tail(stated.path, bases)
        if exact:
            return exact
        usual = self.finder.find_in((stated.name, annotation.stem), folders)
        hinted = next(filter(None, (_at_tail(hint, bases) for hint in stated.hints)), None)
        # A hint may be stale, and counts less than an image in the usual folder with the name of the XML file.
        if usual and (hinted is None or usual.stem == annotation.stem):
            return usual
        return hinted or self._search(annotation, stated, problems)

    def _search(self, annotation: Path, stated: StatedImage, problems: list[str]) -> Path | None:
        """Return the image below the root that fits a stated path best, else the XML file's stem."""
        for names in ((stated.path, *stated.hints, stated.name), (annotation.stem,)):
            ambiguous: list[tuple[Path, list[str]]] = []
            for name in filter(None, names):
                messages: list[str] = []
                path = self.finder.locate(name, str(annotation), messages)
                if path and not messages:
                    return path
                if path:
                    ambiguous.append((path, messages))
            if ambiguous:
                problems += ambiguous[0][1]
                return ambiguous[0][0]
        return None


def _at_tail(path: str, bases: Sequence[Path]) -> Path | None:
    """Return the first existing file at a path or a tail of it with a folder, the longest first."""
    tails = [tail for tail in path_tails(path) if len(tail.parts) > 1]
    file = first_file(base / tail for tail in tails for base in bases)
    return file and Path(os.path.abspath(file))


def _image_folders(annotation: Path) -> Sequence[Path]:
    """Return the usual folders of an XML file's image: near the annotations, or the file's own."""
    root, below = _around_annotations(annotation)
    return [root / "JPEGImages" / below, annotation.parent, root / "images" / below]


def _around_annotations(file: Path) -> tuple[Path, Path]:
    """Return the parent of `Annotations` and the file's subfolder in it, else the file's grandparent."""
    for folder in file.parents:
        if folder.name.lower() == "annotations":
            return folder.parent, file.parent.relative_to(folder)
    return file.parent.parent, Path()
