"""The command `detr-ft`: its verbs in the order of work."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from detr_ft.cli.console import exit_with_status
from detr_ft.cli.data_verbs import doctor, new
from detr_ft.cli.model_verbs import compare, demo, evaluate, export, predict, push
from detr_ft.cli.training_verbs import check, quickstart, replay, train

_HELP_NAMES = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=_HELP_NAMES,
    help="Fine-tune DETR detectors on your own data, with a matching and a loss that you can replace.",
)
# In the order of work, each with an example for its help.
_VERBS: dict[Callable[..., None], str] = {
    quickstart: "detr-ft quickstart",
    doctor: "detr-ft doctor photos --report findings.html --fix repaired",
    new: "detr-ft new repaired -o mine.yaml",
    check: "detr-ft check mine.yaml --probe",
    train: "detr-ft train mine.yaml train.learning_rate=5e-5 train.output_dir=runs/slow",
    replay: "detr-ft replay runs/mine/failures/step-120",
    evaluate: "detr-ft evaluate runs/mine --data coco:other --out reports/other",
    compare: "detr-ft compare runs/mine runs/slow",
    predict: "detr-ft predict runs/mine street.jpg holidays --out predictions",
    demo: "detr-ft demo runs/mine --compare runs/slow",
    push: "detr-ft push runs/mine owner/name --dry-run",
    export: "detr-ft export runs/mine --to onnx --to int8",
}


class _Command(TyperCommand):
    """A verb whose error for an unknown option names the key of the recipe that it probably means."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments as typer does."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # By attribute: releases of typer raise the exceptions of click or of their own copy of it.
            option: Any = getattr(error, "option_name", None)
            key = _key_of(option) if option and any(one.name == "overrides" for one in self.params) else None
            if key:
                unknown: Any = error
                unknown.message = f"No such option: {option}. Values of the recipe have no dashes: {key}=VALUE"
                unknown.possibilities = None
            raise


def _key_of(option: str) -> str | None:
    from detr_ft.recipe.values import similar_key

    name = option.lstrip("-").replace("-", "_")
    return name if "." in name else similar_key(name)


for verb, example in _VERBS.items():
    app.command(cls=_Command, context_settings=_HELP_NAMES, epilog=f"Example: {example}")(exit_with_status(verb))


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"detr-ft {version('detr-ft')}")
        except PackageNotFoundError:
            typer.echo("detr-ft, not installed: run from its source tree")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; default: a message")] = False,
) -> None:
    """Options of every verb."""
    if debug:
        os.environ["DETR_FT_DEBUG"] = "1"


def main() -> None:
    """Run the command; see `detr_ft.cli.console.exit_with_status` for its exit status."""
    app()
