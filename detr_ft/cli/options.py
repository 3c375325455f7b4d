"""Arguments and options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

Data = Annotated[
    str,
    typer.Argument(
        help="A folder or file, or coco:, voc:, yolo:, labelme:, labelstudio:, cvat:, folder:, csv:, parquet:, saved:PATH, or hub:, generated:NAME"
    ),
]
BoxFormat = Annotated[
    str | None,
    typer.Option(
        help="How tables, folders and the Hub's data write boxes: xywh, xyxy or cxcywh, in pixels, or with -fractions; "
        "default: as recognised"
    ),
]
Model = Annotated[
    str, typer.Argument(help="A run directory, a checkpoint's folder, owner/name on the Hub, or embedded:small")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout")]
