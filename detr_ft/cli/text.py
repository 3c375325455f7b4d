"""The text of outcomes for a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from detr_ft.data.doctor.changes import Change, summarize_changes
from detr_ft.evaluation.metrics import TABLE_METRICS, EvaluationMetrics
from detr_ft.models.benchmark import RUNTIMES
from detr_ft.report.headline import headline
from detr_ft.run_directory import CARD
from detr_ft.training.preflight.probe import describe_probe
from detr_ft.training.preflight.timing import describe_rates
from detr_ft.utils.formatting import duration, metric, shorten, visible
from detr_ft.workflows.check import CheckOutcome
from detr_ft.workflows.compare import ComparedModel, CompareOutcome
from detr_ft.workflows.export import ExportOutcome
from detr_ft.workflows.predict import PredictOutcome
from detr_ft.workflows.probe import ProbeOutcome
from detr_ft.workflows.push import PushOutcome
from detr_ft.workflows.replay import ReplayOutcome
from detr_ft.workflows.run import TrainOutcome
from detr_ft.workflows.seeds import SeedsOutcome

_MAX_NAME_CHARS = 60  # of a class in a table


def describe_changes(changes: Sequence[Change]) -> str:
    """Return the number of changes of each kind in a repaired copy."""
    return summarize_changes(changes)


def describe_check(recipe: Path, outcome: CheckOutcome, probe: bool) -> str:
    """Return the criterion of a valid recipe and what was checked, or will be by a probe."""
    end = "The probe of data and checkpoint follows" if probe else "Data and checkpoint were not read; use --probe"
    return (
        f"{outcome.criterion}\n"
        f"{recipe}: the recipe is valid. Its criterion passed all checks: many objects, none, more than queries, extreme and "
        "half-precision values, other orders, several processes, and a short training; so did its augmentation on generated "
        f"images. {end}"
    )


def describe_probe_outcome(outcome: ProbeOutcome) -> str:
    """Return the results of a probe, with advice."""
    lines = describe_probe(outcome.probe, outcome.recipe.train.dataloader_num_workers)
    rates = dict(outcome.rates)
    return "\n".join([*lines, outcome.failure or describe_rates(rates.pop(""), rates)])


def describe_training(outcome: TrainOutcome) -> str:
    """Return how good the model is, how long training took, and the next commands."""
    metrics = outcome.metrics
    lines = [
        headline(metrics, before=metrics.before, end=metrics.end),
        outcome.better,
        *([] if metrics.end is None else (f"Next: {step}" for step in metrics.end.next_steps)),
        f"Training took {duration(outcome.seconds)}. The model, its recipe, log and metrics are in {outcome.folder}",
        f"See it:              open {outcome.report}",
        f"Try it:              detr-ft demo {outcome.folder}",
    ]
    return "\n".join(filter(None, lines))


def describe_seeds(outcome: SeedsOutcome) -> str:
    """Return a table of the metrics over seeds."""
    lines = [f"over seeds {', '.join(map(str, outcome.runs))}: mean, and standard deviation between runs"]
    lines += [
        f"{name:<12} {values.mean:.3f} ± {values.deviation:.3f}   ({', '.join(metric(value) for value in values.values)})"
        for name, values in outcome.statistics.items()
    ]
    return "\n".join(lines)


def describe_replay(outcome: ReplayOutcome) -> str:
    """Return the origin of a failure, or what to try if the step succeeds here."""
    if outcome.verdict is not None:
        return f"origin: {outcome.verdict.origin}\n{outcome.verdict.words}"
    return (
        "Could not reproduce the failure on this CPU, with other dropout: every value is finite. If it happens again "
        "elsewhere, precision, hardware or a term that is not deterministic is the cause: train with bf16 and fp16 off, or "
        "with a lower learning rate"
    )


def metrics_as_json(metrics: EvaluationMetrics) -> str:
    """Return COCO's metrics and those of each class."""
    classes = {name: asdict(row) for name, row in metrics.per_class.items()}
    return json.dumps({**metrics.coco(), "per_class": classes}, indent=2)


def describe_metrics(metrics: EvaluationMetrics) -> str:
    """Return tables of COCO's metrics and of those of each class."""
    coco = metrics.coco()
    lines = [f"{name:<12} {metric(coco[name]):>5}" for name in TABLE_METRICS]
    shown = {name: shorten(visible(name), _MAX_NAME_CHARS) for name in metrics.per_class}
    width = max([5, *map(len, shown.values())])
    lines.append(f"\n{'class':<{width}}  boxes    map  map_50")
    for name, row in metrics.per_class.items():
        lines.append(f"{shown[name]:<{width}}  {row.count:>5}  {metric(row.map):>5}   {metric(row.map_50):>5}")
    return "\n".join(lines)


def describe_comparison(outcome: CompareOutcome, name: str = "map") -> str:
    """Return a table of models with a metric, and its difference to the baseline."""
    width = max(5, *(len(model.name) for model in outcome.models))
    lines = [f"{'model':<{width}}  {'mAP':>6}  95% interval   difference to the first"]
    for model in outcome.models:
        interval = model.intervals[name]
        between = f"{interval.low:.3f} to {interval.high:.3f}" if interval else "-" * 14
        value = metric(model.metrics[name])
        lines.append(f"{model.name:<{width}}  {value:>6}  {between}  {_difference(model, name)}".rstrip())
    return "\n".join(lines)


def _difference(model: ComparedModel, name: str) -> str:
    if model.differences is None:
        return ""
    difference = model.differences[name]
    if difference is None:
        return "  too few images to compare"
    verdict = "more than noise" if difference.real else "no more than noise"
    return (
        f"  {difference.value:+.3f} ({difference.interval.low:+.3f} to {difference.interval.high:+.3f}, 99%): {verdict}"
    )


def describe_predictions(outcome: PredictOutcome) -> str:
    """Return the number of boxes, the thresholds, and the files that were written."""
    boxes, images = sum(map(len, outcome.detections)), len(outcome.files)
    failed = f", {len(outcome.failures)} could not be used" if outcome.failures else ""
    lines = [
        f"{boxes} boxes in {images} images{failed}",
        _describe_thresholds(outcome.thresholds),
        *(f"{format}: {file}" for format, file in outcome.labels.items()),
        f"annotated images: {outcome.pictures}" if images else "",
    ]
    return "\n".join(filter(None, lines))


def _describe_thresholds(thresholds: Mapping[str, float]) -> str:
    values = set(thresholds.values())
    if len(values) == 1:
        return f"score threshold: {values.pop():.3g}"
    return "score thresholds: " + ", ".join(f"{name} {value:.3g}" for name, value in thresholds.items())


def describe_plan(outcome: PushOutcome) -> str:
    """Return the files that a push would upload, one a line."""
    lines = []
    for file in outcome.files:
        notes = ["code that the recipe runs"] if file in outcome.code_files else []
        notes += ["edited since the run wrote it, or not written by it"] if file in outcome.edited_files else []
        notes += ["written by the push"] if outcome.writes_card and file.name == CARD else []
        lines.append(f"{file} ({', '.join(notes)})" if notes else str(file))
    if outcome.dataset is not None:
        lines.append(f"data set: all images and boxes of {outcome.dataset}")
    return "\n".join([*lines, *(f"space: {file}" for file in outcome.space_files)])


def describe_push(outcome: PushOutcome) -> str:
    """Return the addresses of what was pushed, one a line."""
    exists = "the data set is on the Hub already and stays as it is" if outcome.dataset_exists else None
    return "\n".join(filter(None, [outcome.dataset_url, exists, outcome.model_url, outcome.space_url]))


def describe_export(outcome: ExportOutcome) -> str:
    """Return a table of the files of an export, and the mAP that eight bits cost."""
    base = outcome.latency["pytorch"]["median"]
    lines = [f"{'':<22} {'MiB':>6} {'ms an image':>12} {'to PyTorch':>16} {'difference':>10} {'mAP':>7}"]
    for kind, latency in outcome.latency.items():
        size = f"{outcome.files[kind].bytes / 2**20:.1f}" if kind in outcome.files else ""
        agreement = outcome.agreement.get(kind)
        difference = f"{max(agreement.probability, agreement.box):.1e}" if agreement else ""
        value = outcome.metrics.get(kind, {}).get("map")
        mean = f"{value:.4f}" if value is not None else ""
        lines.append(
            f"{RUNTIMES[kind]:<22} {size:>6} {latency['median']:>12.1f} {latency['median'] / base:>15.2f}x {difference:>10} {mean:>7}"
        )
    images = max(agreement.images for agreement in outcome.agreement.values())
    lines.append(
        f"difference: the largest of a probability or a box's side (in fractions of the image), on {images} images"
    )
    if outcome.metrics:
        full, small = (outcome.metrics[kind]["map"] for kind in ("pytorch", "int8"))
        cost = "unknown: the images have no objects" if full is None or small is None else f"{full - small:.4f}"
        lines.append(f"mAP lost by eight bits: {cost}")
    return "\n".join(
        [*lines, "written: " + ", ".join(str(outcome.folder / file.path) for file in outcome.files.values())]
    )
