"""The typed content of `metrics.json`, and the names of the metrics in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, TypeVar, get_args

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from detr_ft.errors import InputError
from detr_ft.run_directory import METRICS
from detr_ft.utils.files import read_regular
from detr_ft.utils.speed import Speed

SCHEMA_VERSION = 1

MetricName = Literal[
    "map", "map_50", "map_75", "map_small", "map_medium", "map_large",
    "mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large",
]  # fmt: skip
COCO_METRICS: tuple[MetricName, ...] = get_args(MetricName)
MAIN_METRICS = COCO_METRICS[:3]  # in a line
TABLE_METRICS = COCO_METRICS[:9]  # in a table
SUMMARY_METRICS: tuple[MetricName, ...] = (*COCO_METRICS[:6], "mar_100")  # in a short table
HEADINGS: dict[str, str] = {
    "map": "mAP", "map_50": "mAP50", "map_75": "mAP75",
    "map_small": "mAP small", "map_medium": "mAP medium", "map_large": "mAP large",
    "mar_1": "mAR1", "mar_10": "mAR10", "mar_100": "mAR100",
    "mar_small": "mAR small", "mar_medium": "mAR medium", "mar_large": "mAR large",
}  # fmt: skip

# A fraction of 1, or None where there is nothing to count, which COCO's own code writes as -1.
Measured = Annotated[
    float | None, BeforeValidator(lambda value: None if isinstance(value, int | float) and value < 0 else value)
]


class Interval(NamedTuple):
    """Bounds of a metric, by percentiles of resampled sets (Efron 1979)."""

    low: float
    high: float


@dataclass(frozen=True)
class ClassMetrics:
    """COCO's metrics of one class, and its number of objects."""

    map: Measured = None
    map_50: Measured = None
    mar_100: Measured = None
    count: int = 0


@dataclass(frozen=True)
class ErrorCost:
    """The number of errors of a kind, and by how much mAP50 would rise without them."""

    count: int
    map_50_lost: float


@dataclass(frozen=True)
class ThresholdChoice:
    """Precision, recall and their harmonic mean F1 of the detections above a threshold, at IoU 0.5."""

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts of objects by their class (row) and the detected class (column), background last."""

    names: list[str]
    matrix: list[list[int]]


@dataclass(frozen=True)
class CalibrationBin:
    """Detections with scores from `low` on: number, mean score, and fraction correct at IoU 0.5."""

    low: float
    count: int
    score: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """Bins of equal width, empty ones left out, and their mean error, weighted by the detections in them."""

    bins: list[CalibrationBin]
    error: float | None


@dataclass(frozen=True)
class CrowdingSlice:
    """Metrics of the images with a similar number of objects."""

    images: int
    map: Measured = None
    map_50: Measured = None
    mar_100: Measured = None


@dataclass(frozen=True)
class FrequencySlice:
    """Mean metrics of the classes with a similar number of boxes in the training data."""

    classes: int
    map: float
    map_50: float


@dataclass(frozen=True)
class VocClassMetrics:
    """Pascal VOC's metrics of one class, and its number of objects."""

    map_all_points: float
    map_11_points: float
    count: int


@dataclass(frozen=True)
class VocMetrics:
    """Pascal VOC's metrics, None without objects."""

    map_all_points: float | None
    map_11_points: float | None
    per_class: dict[str, VocClassMetrics]


@dataclass(frozen=True)
class LayerMatching:
    """Matching of one decoder layer.

    Of matched pairs the mean `iou`, the fraction whose class is `right`, and the fraction that is `settled`: with the
    query of the last layer. `answers_an_object`: confident queries of the right class for each object that has one.
    """

    iou: float
    right: float
    settled: float
    answers_an_object: float


@dataclass(frozen=True)
class MatchingMetrics:
    """Matching by layer; in the last one, objects `unreached` and `beyond` the number of queries."""

    layers: list[LayerMatching]
    objects: int
    unreached: int
    beyond: int
    queries: int
    queries_used: int


@dataclass(frozen=True)
class DataFacts:
    """The training data of a run; `boxes` is a sentence about the boxes that were changed."""

    train_images: int
    held_out_images: int
    skipped_images: int
    train_boxes: int
    boxes: str
    per_class: dict[str, int]
    sizes: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class EvaluationMetrics:
    """The content of `metrics.json` of an evaluation; COCO's metrics are fractions of 1.

    `intervals` are of 95%. Sections that were not measured are None or empty.
    """

    schema_version: int = SCHEMA_VERSION
    map: Measured = None
    map_50: Measured = None
    map_75: Measured = None
    map_small: Measured = None
    map_medium: Measured = None
    map_large: Measured = None
    mar_1: Measured = None
    mar_10: Measured = None
    mar_100: Measured = None
    mar_small: Measured = None
    mar_medium: Measured = None
    mar_large: Measured = None
    per_class: dict[str, ClassMetrics] = field(default_factory=dict)
    intervals: dict[str, Interval | None] = field(default_factory=dict)
    errors: dict[str, ErrorCost] = field(default_factory=dict)
    thresholds: dict[str, ThresholdChoice] = field(default_factory=dict)
    confusion: ConfusionMatrix | None = None
    calibration: Calibration | None = None
    by_crowding: dict[str, CrowdingSlice] = field(default_factory=dict)
    by_frequency: dict[str, FrequencySlice] = field(default_factory=dict)
    images: int | None = None
    voc: VocMetrics | None = None
    matching: MatchingMetrics | None = None
    speed: Speed | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of_coco(metrics: Mapping[str, Any]) -> EvaluationMetrics:
        """Return the values of `coco_metrics`, or of no evaluation at all, as typed metrics."""
        coco = {name: value for name, value in metrics.items() if name != "per_class"}
        per_class = {name: ClassMetrics(**row) for name, row in metrics.get("per_class", {}).items()}
        return EvaluationMetrics(**coco, per_class=per_class)

    def coco(self) -> dict[str, float | None]:
        """Return COCO's twelve metrics by name."""
        return {name: getattr(self, name) for name in COCO_METRICS}

    def to_json(self) -> str:
        """Return the text of `metrics.json`."""
        return json.dumps(asdict(self), indent=2) + "\n"


TOO_SHORT = "too short"  # the start of the diagnosis of a run whose loss is still falling


@dataclass(frozen=True)
class TrainingEnd:
    """The end of a run: epochs done and planned, the reason to stop before the last, and advice.

    `stopped_by` is empty for a run that took all of its steps. `diagnosis` are likely causes of an mAP near 0.
    """

    epochs: float
    planned_epochs: int
    stopped_by: Literal["", "time limit", "early stopping"] = ""
    diagnosis: list[str] = field(default_factory=list)
    next_steps: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class RunMetrics(EvaluationMetrics):
    """The content of `metrics.json` of a run: the metrics of its evaluation, and what training took.

    `before` are COCO's metrics before training. `peak_memory_mib` is of the GPU where there is one.
    """

    before: dict[str, Measured] | None = None
    seconds: float | None = None
    peak_memory_mib: int | None = None
    watt_hours: float | None = None
    data: DataFacts | None = None
    end: TrainingEnd | None = None
    command: str = ""

    @classmethod
    def from_json(cls, text: str, where: str = METRICS) -> RunMetrics:
        """Read a `metrics.json` of a run or an evaluation; one without a `schema_version` has version 0.

        Raises InputError, beginning with `where`, for a text that is no JSON, other values, and a newer version.
        """
        content = _mapping(text, where)
        version = content.setdefault("schema_version", 0)
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise InputError(
                f"{where}: schema_version is {version}, and this release reads up to {SCHEMA_VERSION}. Update detr-ft."
            )
        return _validated(cls, content, where)

    @classmethod
    def read(cls, file: Path) -> RunMetrics:
        """Read a file as `from_json` does."""
        return cls.from_json(_text(file), str(file))


@dataclass(frozen=True)
class ExportedFile:
    """A file of an export, relative to its folder."""

    path: str
    bytes: int


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one image: the median, and the 10th and 90th percentile."""

    median: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ExportMetrics:
    """The content of `export.json` by runtime; `figures` are COCO's `map` and `map_50`."""

    hardware: str = "a CPU"
    files: dict[str, ExportedFile] = field(default_factory=dict)
    latency: dict[str, Latency] = field(default_factory=dict)
    figures: dict[str, dict[str, Measured]] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> ExportMetrics:
        """Read a file. Raises InputError that begins with its path."""
        return _validated(cls, _mapping(_text(file), str(file)), str(file))


T = TypeVar("T")
_REMEDY = "Remove it, and write it again: train --resume for a run, else export or evaluate"


def _text(file: Path) -> str:
    try:
        return read_regular(file).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: can't be read: {error}. {_REMEDY}") from error


def _mapping(text: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text, parse_constant=_refuse_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {error}. {_REMEDY}") from error
    if not isinstance(content, dict):
        raise InputError(f"{where}: must be a JSON object, got {type(content).__name__}. {_REMEDY}")
    return content


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _refuse_number(text)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no finite number")


def _validated(schema: type[T], content: Mapping[str, Any], where: str) -> T:
    try:
        return TypeAdapter(schema).validate_python(content)
    except ValidationError as error:
        raise InputError(
            [f"{where}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        ) from error
