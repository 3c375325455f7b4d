"""Arguments and options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

from detr_ft.data.sources.registry import box_format_help, data_help

Data = Annotated[str, typer.Argument(help=data_help())]
BoxFormat = Annotated[str | None, typer.Option(help=box_format_help())]
Model = Annotated[
    str, typer.Argument(help="A run directory, a checkpoint's folder, owner/name on the Hub, or embedded:small")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout")]
