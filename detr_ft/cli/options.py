"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detr_ft.data.sources.registry import UnlabeledPolicy, box_format_help, data_help

Data = Annotated[str, typer.Argument(metavar="DATA", help=data_help())]
BoxFormat = Annotated[str | None, typer.Option(metavar="FORMAT", help=box_format_help())]
Images = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Find the images in this folder; default: near the annotations")
]
Unlabeled = Annotated[
    UnlabeledPolicy | None,
    typer.Option(
        metavar="background|skip|error",
        help="Read images with neither a label file nor a record as background, skip them, or stop; "
        "default: background for yolo: data, skip for others",
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A run directory, a checkpoint's folder, owner/name on the Hub, or embedded:small"
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Use the split train, validation or test; default: validation, else test, else train"
    ),
]
BatchSize = Annotated[
    int, typer.Option(metavar="N", min=1, show_default=False, help="Run so many images at once; default: 8")
]
RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, a YAML file")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Override keys of the recipe: train.learning_rate=5e-5 ...; default: none"
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Run the Python code that the criterion names, also if the run was trained elsewhere; default: only code of your "
        "own runs",
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print results as JSON on stdout; default: as a table")]
