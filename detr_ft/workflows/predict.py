"""Detect objects in image files, and write the results."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

from PIL import Image

from detr_ft.data.images import ImageError, ImageErrorKind, image_format, open_image
from detr_ft.data.sources.listing import image_files
from detr_ft.data.writers.base import LabeledBox, LabeledImage, relative_names, unique_names
from detr_ft.data.writers.registry import label_formats, write_labels
from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.inference.images import download, read_image
from detr_ft.models.predict import size_problem
from detr_ft.structures import Detections
from detr_ft.utils.arguments import check_list_of_texts, check_threshold, check_whole_number, model_text, path_text
from detr_ft.utils.drawing import draw
from detr_ft.utils.files import writing
from detr_ft.utils.parallel import LimitedReads
from detr_ft.utils.progress import track
from detr_ft.utils.threads import use_free_cores
from detr_ft.workflows.results import check_new_folder
from detr_ft.workflows.splits import ModelLike, PathLike

_PICTURES = "pictures"
_DOWNLOADS = "downloads"
_LOSSY_FORMATS = ("JPEG", "JPEG2000", "WEBP")
_JPEG_SUFFIX, _JPEG_QUALITY = ".jpg", 90
_MAX_JPEG_SIDE_PX = 65_500
_REASONS: Mapping[ImageErrorKind, str] = {
    "missing": "the file does not exist",
    "unreadable": "not an image, or of an unknown format. Replace the file",
    "truncated": "the image is truncated or damaged. Replace the file",
    "too large": "the image has too many pixels. Make it smaller",
}


@dataclass(frozen=True)
class FailedImage:
    """An image without detections, a path or URL, and the reason."""

    file: Path | str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass(frozen=True)
class PredictOutcome:
    """The detections above the threshold in each image, a path or URL, and the names of the classes.

    `failures` are the images that could not be used, which are not in `files`. `thresholds` has the least score for each
    class. `labels` has the main file that was written in each format.
    """

    files: tuple[Path | str, ...]
    detections: tuple[Detections, ...]
    names: tuple[str, ...]
    output_dir: Path | None = None
    failures: tuple[FailedImage, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def predictions(self) -> Path | None:
        """The file of detections in COCO's results format, None if it was not written."""
        return self.labels.get("coco")

    @property
    def pictures(self) -> Path | None:
        """The folder of annotated images."""
        return self.output_dir and self.output_dir / _PICTURES


def predict(
    model: ModelLike,
    images: PathLike | Sequence[PathLike],
    *,
    output_dir: PathLike | None = None,
    threshold: float | None = None,
    batch_size: int = 8,
    format: str | Sequence[str] = "coco",
) -> PredictOutcome:
    """Detect objects in image files, folders of them with their subfolders, and URLs.

    A new folder `output_dir` gets the detections in each `format` (coco, yolo, labelme, labelstudio, cvat, csv) and an
    annotated copy of each image in `pictures/`. `threshold` is the least score of a detection, by default the model's own
    for each class. An image that can't be used is among the `failures` of the outcome; if none can be used, nothing is
    written. Raises InputError with every path that does not exist and for invalid arguments, before the model is loaded.
    """
    checkpoint = model_text(model)
    check_threshold(threshold)
    check_whole_number("batch_size", batch_size, 1)
    sources = image_files(_paths(images))
    formats = label_formats([format] if isinstance(format, str) else format)
    folder = None if output_dir is None else Path(path_text("output_dir", output_dir))
    if folder is not None:
        check_new_folder(folder)
    use_free_cores()
    detector = Detector.load(checkpoint)
    reader = _Reader(detector, sources, folder)
    detections = [detector.filter(detected, threshold) for detected in detector.detect(reader.images(), batch_size)]
    labels: dict[str, Path] = {}
    if folder is not None and reader.usable:
        labeled = reader.labeled(detections)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for label_format in formats:
                labels[label_format.name] = write_labels(label_format, labeled, detector.names, folder)
            _write_pictures(labeled, detections, detector.names, folder / _PICTURES)
    return PredictOutcome(
        tuple(image.source for image in reader.usable),
        tuple(detections),
        tuple(detector.names),
        folder,
        tuple(reader.failures),
        detector.thresholds if threshold is None else dict.fromkeys(detector.names, threshold),
        labels,
    )


def _paths(images: PathLike | Sequence[PathLike]) -> list[str]:
    if isinstance(images, str | os.PathLike):
        return [path_text("images", images)]
    check_list_of_texts("images", images, "[IMAGE]")
    return [path_text("images", image) for image in images]


class _UsableImage(NamedTuple):
    """An image that was read: its number among all, path or URL, file, size, and name in labels."""

    number: int
    source: Path | str
    file: Path
    size: tuple[int, int]
    name: str


class _Reader:
    """Opens images one by one; collects those that were read, and those that can't be used."""

    def __init__(self, detector: Detector, sources: Sequence[Path | str], folder: Path | None) -> None:
        self.usable: list[_UsableImage] = []
        self.failures: list[FailedImage] = []
        self._processor = detector.processor
        self._sources = sources
        self._read = LimitedReads()
        self._downloads = None if folder is None else folder / _DOWNLOADS

    def images(self) -> Iterator[Image.Image]:
        """Yield the images that can be used, upright and in RGB."""
        names = relative_names(self._sources)
        for number, source in enumerate(track(self._sources, "detecting", len(self._sources))):
            try:
                file, image = self._read(partial(self._open, source, names[number]), str(source))
            except InputError as error:
                self.failures.append(FailedImage(source, _reason(error, source)))
                continue
            problem = size_problem(self._processor, *image.size)
            if problem:
                self.failures.append(FailedImage(source, problem))
                continue
            self.usable.append(_UsableImage(number, source, file, image.size, names[number]))
            yield image

    def labeled(self, detections: Sequence[Detections]) -> list[LabeledImage]:
        """Return the images with their detections, numbered from 0 among all, as sources of data do."""
        return [
            LabeledImage(image.file, image.name, _as_given(image.source), image.number, *image.size, _boxes(detected))
            for image, detected in zip(self.usable, detections, strict=True)
        ]

    def _open(self, source: Path | str, name: str) -> tuple[Path, Image.Image]:
        """Open a file or URL. With an output folder a URL is saved: pictures and labels need the file."""
        if not isinstance(source, str):
            return source, open_image(source)
        if self._downloads is None:
            return Path(name), read_image(source)
        file, content = self._downloads / name, download(source)
        image = open_image({"bytes": content, "path": source})
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return file, image


def _reason(error: InputError, source: Path | str) -> str:
    """Return the reason of a failure without the messages of the library that opens images."""
    if isinstance(error, ImageError):
        return _REASONS[error.kind]
    return str(error).removeprefix(f"{source}: ")


def _as_given(source: Path | str) -> str:
    """Return a path with slashes as it was given, relative to the current folder if it is below."""
    if isinstance(source, str):
        return source
    here = Path.cwd()
    return (source.relative_to(here) if source.is_absolute() and source.is_relative_to(here) else source).as_posix()


def _boxes(detections: Detections) -> tuple[LabeledBox, ...]:
    return tuple(LabeledBox(name, (x0, y0, x1 - x0, y1 - y0), score) for (x0, y0, x1, y1), score, name in detections)


def _write_pictures(
    images: Sequence[LabeledImage], detections: Sequence[Detections], names: Sequence[str], folder: Path
) -> None:
    """Draw the detections on each image: as JPEG, or as PNG for an image of a lossless format.

    The names end with -boxes: a source that searches for the images of annotations must not find pictures with boxes.
    """
    paths = unique_names(map(_picture_name, images))
    for image, detected, path in zip(images, detections, paths, strict=True):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        picture = draw(open_image(image.file), detected.boxes, detected.labels, names, detected.scores)
        if target.suffix == _JPEG_SUFFIX:
            picture.save(target, quality=_JPEG_QUALITY, subsampling=0)  # subsampling blurs thin colored lines
        else:
            picture.save(target)


def _picture_name(image: LabeledImage) -> PurePosixPath:
    lossy = image_format(image.file) in _LOSSY_FORMATS and max(image.width, image.height) <= _MAX_JPEG_SIDE_PX
    name = PurePosixPath(image.name)
    return name.with_name(f"{name.stem}-boxes{_JPEG_SUFFIX if lossy else '.png'}")
