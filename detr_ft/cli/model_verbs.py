"""The verbs on models: `evaluate`, `compare`, `predict`, `demo`, `push` and `export`."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from detr_ft.cli.console import print_message, print_result
from detr_ft.cli.early_checks import check_images, check_paths
from detr_ft.cli.options import BatchSize, BoxFormat, Images, JsonFlag, Model, Split, TrustCode, Unlabeled
from detr_ft.data.writers.registry import label_formats_help
from detr_ft.errors import InputError
from detr_ft.utils.assets import demo_folder


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Evaluate a run directory, a checkpoint's folder, owner/name on the Hub, or embedded:small; "
            "default: the file of --from-predictions",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Evaluate on these data; default: the validation images of the model's run"),
    ] = None,
    split: Split = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            "--out",
            metavar="FOLDER",
            help="Write report.html and metrics.json to this new folder; default: no files",
        ),
    ] = None,
    save_predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the detections to this file in COCO's results format; default: no file"
        ),
    ] = None,
    from_predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Evaluate this file of COCO results, or COCO file with scores, whose images are matched by file_name, else "
            "by image_id; default: evaluate the model",
        ),
    ] = None,
    batch_size: BatchSize = 8,
    box_format: BoxFormat = None,
    images: Images = None,
    unlabeled: Unlabeled = None,
    as_json: JsonFlag = False,
) -> None:
    """Compute COCO's metrics of a model, or of a file of detections, on a data set."""
    check_paths([] if model is None else [model], data, [] if from_predictions is None else [from_predictions])
    from detr_ft.cli.text import describe_metrics, metrics_as_json
    from detr_ft.workflows.evaluate import evaluate as evaluate_model

    outcome = evaluate_model(
        model,
        data,
        split=split,
        output_dir=output_dir,
        save_predictions=save_predictions,
        from_predictions=from_predictions,
        batch_size=batch_size,
        box_format=box_format,
        images=images,
        unlabeled=unlabeled,
    )
    if save_predictions is not None:
        print_message(f"detections: {save_predictions}")
    if outcome.report is not None:
        print_message(f"report: {outcome.report}, metrics: {outcome.output_dir}")
    print_result(metrics_as_json(outcome.metrics) if as_json else describe_metrics(outcome.metrics))


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Run directories, checkpoints' folders or names on the Hub; the first is the baseline",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Compare on these data; default: the validation images of the runs, which must be the same",
        ),
    ] = None,
    split: Split = None,
    batch_size: BatchSize = 8,
    box_format: BoxFormat = None,
    images: Images = None,
    unlabeled: Unlabeled = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare models on the same images and test whether the difference is significant."""
    check_paths(models, data)
    from detr_ft.cli.text import describe_comparison
    from detr_ft.workflows.compare import compare as compare_models

    outcome = compare_models(
        models,
        data,
        split=split,
        batch_size=batch_size,
        box_format=box_format,
        images=images,
        unlabeled=unlabeled,
    )
    as_values = [model.as_json() for model in outcome.models]
    print_result(json.dumps(as_values, indent=2) if as_json else describe_comparison(outcome))


def predict(
    model: Model,
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE", help="Image files, folders of them with their subfolders, or http(s) URLs"),
    ],
    output_dir: Annotated[
        Path,
        typer.Option(
            "--output-dir",
            "--out",
            metavar="FOLDER",
            show_default=False,
            help="Write the detections and the annotated images to this new folder; default: predictions",
        ),
    ] = Path("predictions"),
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="SCORE",
            min=0,
            max=1,
            help="Keep boxes above this score; default: the model's own for each class, else 0.5",
        ),
    ] = None,
    batch_size: BatchSize = 8,
    format: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORMAT",
            show_default=False,
            help=f"Write the detections as {label_formats_help()}; may be repeated; default: coco",
        ),
    ] = None,
) -> None:
    """Detect objects in images; write boxes for COCO or annotation tools, and annotated images.

    An image that can't be used is reported at the end, with exit status 2.
    """
    formats = format or ["coco"]
    check_images(model, images, formats)
    from detr_ft.cli.text import describe_predictions
    from detr_ft.workflows.predict import predict as predict_images

    outcome = predict_images(
        model, images, output_dir=output_dir, threshold=threshold, batch_size=batch_size, format=formats
    )
    print_message(describe_predictions(outcome))
    if outcome.failures:
        raise InputError([str(failure) for failure in outcome.failures])


def demo(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="Show a run directory, a checkpoint's folder, or owner/name on the Hub; default: embedded:small",
        ),
    ] = "embedded:small",
    port: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=65535, help="Serve on this port; default: a free one from 7860"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Start with images of these data; default: the validation images of the model's run"
        ),
    ] = None,
    box_format: BoxFormat = None,
    images: Images = None,
    unlabeled: Unlabeled = None,
    compare: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Show another model beside it; default: none")
    ] = None,
    trust_code: TrustCode = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Answer also to this host, the name of a proxy; may be repeated; default: to this machine's names",
        ),
    ] = None,
) -> None:
    """Open a page in the browser with a model's detections and their matching in training."""
    if find_spec("gradio") is None:
        raise InputError("the demo needs gradio: pip install 'detr-ft[demo]'")
    check_paths([model] if compare is None else [model, compare], data)
    print_message("the demo starts: its libraries take some seconds")
    sys.path.insert(0, str(demo_folder()))
    from app import serve

    from detr_ft.workflows.splits import DataOptions

    serve(
        model,
        port=port,
        data=data,
        options=DataOptions(box_format, images, unlabeled),
        compare=compare,
        trust_code=trust_code,
        allowed_hosts=allow_host or (),
    )


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory")],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="OWNER/NAME", help="Upload as owner/name on the Hub; default: hub.repo_id of the run's recipe"
        ),
    ] = None,
    public: Annotated[
        bool | None,
        typer.Option(
            "--public/--private", help="Make it public or private; default: hub.private of the recipe, private"
        ),
    ] = None,
    space: Annotated[bool, typer.Option("--space", help="Also make a Gradio Space of it; default: no")] = False,
    dataset: Annotated[bool, typer.Option("--dataset", help="Also upload the training data; default: no")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files to upload; default: upload")] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Upload this file of the run though the run did not write it, or it was changed; may be repeated; "
            "default: an edited card and edited code",
        ),
    ] = None,
) -> None:
    """Upload a run to the Hub: the model, its processor, recipe, metrics, examples and card, nothing else."""
    check_paths(files=[run])
    from detr_ft.cli.text import describe_plan, describe_push
    from detr_ft.workflows.push import push as push_run

    outcome = push_run(run, name, public=public, space=space, dataset=dataset, dry_run=dry_run, include=include or ())
    print_result(describe_plan(outcome) if dry_run else describe_push(outcome))


def export(
    model: Model,
    to: Annotated[
        list[str],
        typer.Option(
            metavar="FORMAT", help="Write onnx, int8 (ONNX in eight bits) or torch (torch.export); may be repeated"
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Verify on these images; default: the validation images of the model's run"),
    ] = None,
    split: Split = None,
    box_format: BoxFormat = None,
    images: Images = None,
    unlabeled: Unlabeled = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", "--out", metavar="FOLDER", help="Write to this new folder; default: the model's own folder"
        ),
    ] = None,
) -> None:
    """Write a model as ONNX or by torch.export, verify it against PyTorch on images, and time both."""
    check_paths([model], data)
    from detr_ft.cli.text import describe_export
    from detr_ft.workflows.export import export as export_model

    outcome = export_model(
        model,
        to,
        data,
        split=split,
        box_format=box_format,
        images=images,
        unlabeled=unlabeled,
        output_dir=output_dir,
    )
    print_message(describe_export(outcome))
