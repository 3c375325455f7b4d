"""The command `detr-ft`: its verbs in the order of work."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from detr_ft.cli.console import exit_with_status
from detr_ft.cli.data_verbs import doctor, new
from detr_ft.cli.model_verbs import compare, demo, evaluate, export, predict, push
from detr_ft.cli.training_verbs import check, quickstart, replay, train

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Fine-tune DETR detectors on your own data, with a matching and a loss that you can replace.",
)
for verb in (quickstart, doctor, new, check, train, replay, evaluate, compare, predict, demo, push, export):
    app.command()(exit_with_status(verb))


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; default: a message")] = False,
) -> None:
    """Options of every verb."""
    if debug:
        os.environ["DETR_FT_DEBUG"] = "1"


def main() -> None:
    """Run the command; see `detr_ft.cli.console.exit_with_status` for its exit status."""
    app()
