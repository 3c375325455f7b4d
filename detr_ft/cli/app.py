"""The command `detr-ft`."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from detr_ft.cli.console import USER_ERROR, answer, exit_with_status
from detr_ft.cli.options import BoxFormat, Data, JsonFlag, Model
from detr_ft.errors import InputError
from detr_ft.run_directory import RECIPE
from detr_ft.utils.progress import warn

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Fine-tune DETR detectors on your own data, with a matching and a loss that you can replace.",
)


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error")] = False) -> None:
    """Options of every command."""
    if debug:
        os.environ["DETR_FT_DEBUG"] = "1"


@app.command()
@exit_with_status
def quickstart(
    output_dir: Annotated[
        Path | None, typer.Option(help="Where the run goes; default: runs/quickstart, -2, -3 ...")
    ] = None,
) -> None:
    """Fine-tune the embedded checkpoint on embedded data, from start to report, in a few minutes on a CPU."""
    from detr_ft.workflows.quickstart import run_quickstart

    run_quickstart(output_dir)


@app.command()
@exit_with_status
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="train.learning_rate=5e-5 ...")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in train.output_dir, if there is one")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --resume: go on although classes or training data are others")
    ] = False,
    seeds: Annotated[
        str | None, typer.Option(help="Train a run for each of these seeds, as in 0,1,2, and sum them up")
    ] = None,
) -> None:
    """Train by a recipe and write a run directory."""
    from detr_ft.workflows.seeds import train_by_seeds
    from detr_ft.workflows.train import train_by

    if seeds is None:
        train_by(recipe, overrides or [], resume, force)
    else:
        train_by_seeds(recipe, overrides or [], seeds, resume, force)


@app.command()
@exit_with_status
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="A run directory, a checkpoint's folder, owner/name on the Hub, or embedded:small"),
    ] = None,
    data: Annotated[str | None, typer.Option(help="What to evaluate on; default: the data of the run's recipe")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, validation or test; default: validation, else test, else train")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for report.html and metrics.json")] = None,
    save_predictions: Annotated[
        Path | None, typer.Option(help="A file for the detections, in COCO's results format")
    ] = None,
    from_predictions: Annotated[
        Path | None, typer.Option(help="Evaluate this file of COCO results instead of a model")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    box_format: BoxFormat = None,
    as_json: JsonFlag = False,
) -> None:
    """The COCO figures of a model, or of somebody's detections, on a data set; with --out, a report."""
    from detr_ft.cli.tables import figures_table
    from detr_ft.workflows.evaluate import evaluate_by

    metrics = evaluate_by(model, data, split, batch_size, box_format, out, save_predictions, from_predictions)
    answer(json.dumps(metrics, indent=2) if as_json else figures_table(metrics))


@app.command()
@exit_with_status
def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Run directories, checkpoints' folders or names on the Hub; the first is what the others are held against"
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="What to compare them on; default: what the runs held out, which must be the same"),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, validation or test; default: validation, else test, else train")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    as_json: JsonFlag = False,
) -> None:
    """Whether models differ on the same images by more than noise."""
    from detr_ft.workflows.compare import compare as compare_models
    from detr_ft.workflows.compare import comparison_table

    found = compare_models(models, data, split, batch_size)
    answer(json.dumps([one.as_json() for one in found], indent=2) if as_json else comparison_table(found))


@app.command()
@exit_with_status
def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them")],
    out: Annotated[Path, typer.Option(help="A new folder for predictions.json and the annotated images")] = Path(
        "predictions"
    ),
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least score of a box; default: the model's own for each class, else 0.5"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
) -> None:
    """Boxes as JSON (COCO results) and annotated images."""
    from detr_ft.workflows.predict import predict_files

    predict_files(model, images, out, threshold, batch_size)


@app.command()
@exit_with_status
def demo(
    model: Annotated[str, typer.Argument(help="As for evaluate")] = "embedded:small",
    port: Annotated[int | None, typer.Option(min=1, max=65535)] = None,
    data: Annotated[
        str | None, typer.Option(help="Images with boxes to begin with; default: what the model's run held out")
    ] = None,
    compare: Annotated[str | None, typer.Option(help="Another model, to stand beside it")] = None,
) -> None:
    """Open a page in the browser: what the model finds in a picture, and how training matches it with the truth."""
    from importlib.util import find_spec

    from detr_ft.utils.assets import demo_folder
    from detr_ft.utils.progress import say

    if find_spec("gradio") is None:
        raise InputError("the demo needs gradio: pip install 'detr-ft[demo]'")
    script = demo_folder() / "app.py"
    say("the demo starts: its libraries take some seconds")
    sys.argv = [
        str(script),
        model,
        *(["--port", str(port)] if port else []),
        *(["--data", data] if data else []),
        *(["--compare", compare] if compare else []),
    ]
    runpy.run_path(str(script), run_name="__main__")


@app.command()
@exit_with_status
def push(
    run: Annotated[Path, typer.Argument(help="A run directory")],
    name: Annotated[
        str | None, typer.Argument(help="owner/name on the Hub; default: hub.repo_id of the run's recipe")
    ] = None,
    public: Annotated[
        bool | None,
        typer.Option("--public/--private", help="Who sees it; default: hub.private of the recipe, which is private"),
    ] = None,
    space: Annotated[bool, typer.Option("--space", help="Make a Gradio Space of it, too")] = False,
    dataset: Annotated[bool, typer.Option("--dataset", help="Upload the data that it was trained on, too")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be uploaded")] = False,
) -> None:
    """Upload a run to the Hub: the model, its processor, recipe, figures, examples and card, nothing else."""
    from detr_ft.workflows.push import push_run

    push_run(run, name, public, dry_run, space, dataset)


@app.command()
@exit_with_status
def export(
    model: Annotated[
        str, typer.Argument(help="A run directory, a checkpoint's folder, owner/name on the Hub, or embedded:small")
    ],
    to: Annotated[
        list[str], typer.Option(help="onnx, int8 (ONNX in eight bits) or torch (torch.export); may be repeated")
    ],
    data: Annotated[
        str | None, typer.Option(help="Images to check it on; default: those that the model's own run held out")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Default: validation, else test, else train")] = None,
    box_format: Annotated[
        str | None, typer.Option(help="xyxy, xywh, cxcywh or cxcywh_norm: for data that don't say")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for it; default: the model's own folder")] = None,
) -> None:
    """Write a model as ONNX or by torch.export, checked against PyTorch on images, with a table of times."""
    from detr_ft.workflows.export import export_model, say_export

    say_export(export_model(model, to, data, split, box_format, out))


@app.command()
@exit_with_status
def doctor(
    data: Data,
    as_json: JsonFlag = False,
    report: Annotated[Path | None, typer.Option(help="Write a page with pictures to this new .html file")] = None,
    fix: Annotated[
        str | None, typer.Option(help="Write a mended copy, as COCO files, to this new folder, or to hub:OWNER/NAME")
    ] = None,
    drawn_on: Annotated[
        Literal["stated", "file"] | None,
        typer.Option(
            help="With --fix, of images of unclear size: whether boxes were drawn for the stated one or the file's"
        ),
    ] = None,
    write_coco: Annotated[
        Path | None, typer.Option(help="Also write the data as it is, as COCO files, into this new folder")
    ] = None,
    num_queries: Annotated[int, typer.Option(min=1, help="Queries of the model that is to be trained")] = 100,
    longest_edge: Annotated[
        int | None, typer.Option(min=32, help="Pixels that images are to be resized to; default: what is advised")
    ] = None,
    box_format: BoxFormat = None,
    augment: Annotated[
        Path | None, typer.Option(help="A recipe: write a picture of how it augments these images")
    ] = None,
    augment_out: Annotated[
        Path | None,
        typer.Option(help="With --augment: the new .png file; default: RECIPE-augmented.png in the current folder"),
    ] = None,
) -> None:
    """Look through a data set, image by image, and say what is wrong with it, why it matters and how to mend it.

    Ends with status 2 where there is an error: data that training would refuse or learn wrongly.
    """
    from detr_ft.report.doctor.text import describe
    from detr_ft.workflows.doctor import Outputs, run_doctor

    outputs = Outputs(report, fix, write_coco, augment, drawn_on, augment_out)
    diagnosis, losses = run_doctor(data, outputs, num_queries, longest_edge, box_format)
    typer.echo(diagnosis.to_json() if as_json else describe(diagnosis))
    for line in losses:
        warn(line)
    if diagnosis.errors:
        raise SystemExit(USER_ERROR)


@app.command()
@exit_with_status
def check(
    recipe: Annotated[Path, typer.Argument(help="A recipe, a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="train.learning_rate=5e-5 ...")] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Also try it on its data: does it learn a batch, how long will it take, does it fit"
        ),
    ] = False,
) -> None:
    """Check a recipe and its criterion in seconds on the CPU: every key, shapes, finite values and gradients.

    Data and checkpoint are looked at with --probe, which takes a few minutes, and by `train` before it begins.
    """
    from detr_ft.workflows.check import check_recipe, probe_run

    check_recipe(recipe, overrides or [])
    if probe:
        typer.echo("\n".join(probe_run(recipe, overrides or [])))


@app.command()
@exit_with_status
def replay(
    capsule: Annotated[Path, typer.Argument(help="What a failed run wrote: RUN/failures/step-N")],
) -> None:
    """Take a step that failed again, on the CPU, and name the first number of it that is NaN or infinite, and its origin."""
    from detr_ft.workflows.replay import replay_capsule

    typer.echo(replay_capsule(capsule))


@app.command()
@exit_with_status
def new(
    data: Data,
    out: Annotated[Path, typer.Option("-o", "--out", help="The recipe to write")] = Path(RECIPE),
    checkpoint: Annotated[str | None, typer.Option(help="What to start from; default: by the hardware at hand")] = None,
    box_format: BoxFormat = None,
) -> None:
    """Write a complete, commented recipe for a data set."""
    from detr_ft.workflows.new import write_recipe

    write_recipe(data, out, checkpoint, box_format)


def main() -> None:
    """Run the command; see `detr_ft.cli.console.exit_with_status` for its exit status."""
    app()
