"""The verbs on data sets: `doctor` and `new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from detr_ft.cli.console import INVALID_INPUT, CommandExit, print_message, print_result, warn
from detr_ft.cli.early_checks import check_paths
from detr_ft.cli.options import BoxFormat, Data, Images, JsonFlag, Unlabeled
from detr_ft.run_directory import RECIPE


def doctor(
    data: Data,
    as_json: JsonFlag = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with pictures to this new .html file; default: none"),
    ] = None,
    fix: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Write a repaired copy as COCO files to this new folder, or to hub:OWNER/NAME; default: none",
        ),
    ] = None,
    drawn_on: Annotated[
        Literal["stated", "file"] | None,
        typer.Option(
            metavar="stated|file",
            help="With --fix, take the boxes of images of ambiguous size as drawn on the stated size or on the file's; "
            "default: leave such images out",
        ),
    ] = None,
    write_coco: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write the data as they are, as COCO files, to this new folder; default: none"
        ),
    ] = None,
    num_queries: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, show_default=False, help="Check for a model with so many queries; default: 100"
        ),
    ] = 100,
    longest_edge: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", min=32, help="Check for images resized to so many pixels; default: the advised size"
        ),
    ] = None,
    box_format: BoxFormat = None,
    images: Images = None,
    unlabeled: Unlabeled = None,
    augment: Annotated[
        Path | None,
        typer.Option(metavar="RECIPE", help="Draw how this recipe augments the images; default: no picture"),
    ] = None,
    augment_out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --augment, write the picture to this new .png file; default: RECIPE-augmented.png in the current folder",
        ),
    ] = None,
) -> None:
    """Examine a data set, image by image: list its problems, why they matter and how to repair them.

    Ends with status 2 if there is an error: data that training would refuse or learn wrongly.
    """
    check_paths(data=data, files=[] if augment is None else [augment])
    from detr_ft.cli.text import describe_changes
    from detr_ft.report.doctor import describe
    from detr_ft.workflows.doctor import doctor as examine

    outcome = examine(
        data,
        report=report,
        fix=fix,
        drawn_on=drawn_on,
        write_coco=write_coco,
        num_queries=num_queries,
        longest_edge=longest_edge,
        box_format=box_format,
        images=images,
        unlabeled=unlabeled,
        augment=augment,
        augment_out=augment_out,
    )
    if fix is not None:
        print_message(describe_changes(outcome.changes))
        print_message(outcome.balance)
    print_result(outcome.diagnosis.to_json() if as_json else describe(outcome.diagnosis))
    for line in outcome.left_out:
        warn(line)
    if outcome.diagnosis.errors:
        raise CommandExit(INVALID_INPUT)


def new(
    data: Data,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            show_default=False,
            help="Write the recipe to this new file; default: recipe.yaml",
        ),
    ] = Path(RECIPE),
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Start from this checkpoint; default: chosen by this machine's hardware"),
    ] = None,
    box_format: BoxFormat = None,
    images: Images = None,
    unlabeled: Unlabeled = None,
) -> None:
    """Write a complete, commented recipe for a data set."""
    check_paths([] if checkpoint is None else [checkpoint], data)
    from detr_ft.workflows.new import new_recipe

    new_recipe(data, out, checkpoint=checkpoint, box_format=box_format, images=images, unlabeled=unlabeled)
    print_message(f"{out} is written. Read it, then: detr-ft train {out}")
