"""`check` in a child process, because code of a recipe may end or block the process."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detr_ft.cli.child_process import run_child, serve
from detr_ft.cli.console import debugging, print_message, set_up_logging
from detr_ft.errors import InputError
from detr_ft.recipe.values import read_values
from detr_ft.utils import components
from detr_ft.utils.components import code_files, module_names
from detr_ft.utils.progress import status
from detr_ft.utils.user_code import describe_error, raise_if_interrupt

_MODULE = "detr_ft.cli.check_process"


def check_in_child(recipe: Path, overrides: Sequence[str], probe: bool, seconds: float) -> dict[str, Any]:
    """Return the `problems` and `missing` paths of a recipe, and the `text` of a valid one.

    Raises InputError for a recipe whose check does not end within the limit, or ends before it is complete.
    """
    for source in _code(recipe, overrides):
        print_message(f"runs code: {source}")
    with status("checking the recipe in a process of its own"):
        outcome: dict[str, Any] = _result(
            {"recipe": str(recipe), "overrides": list(overrides), "probe": probe}, "check", seconds
        )
    return outcome


def probe_in_child(recipe: Path, overrides: Sequence[str]) -> str:
    """Return the results of a probe as text. Raises InputError."""
    with status("overfitting a batch and timing steps, which takes a few minutes"):
        text: str = _result({"recipe": str(recipe), "overrides": list(overrides)}, "probe", None)
    return text


def _result(request: dict[str, Any], verb: str, seconds: float | None) -> Any:
    child = run_child(_MODULE, {**request, "verb": verb}, seconds)
    if child.output:
        print_message(child.output)
    if child.result is None:
        remedy = (
            "--time-limit SECONDS sets another limit"
            if child.timed_out
            else "Code of a recipe must not end the process, as os._exit does"
        )
        code = ", ".join(_code(Path(request["recipe"]), request["overrides"])) or "no code"
        raise InputError(f"{request['recipe']}: its {verb} {child.failure}. It runs {code}. {remedy}")
    if "problems" in child.result:
        raise InputError(child.result["problems"])
    if "failure" in child.result:
        raise RuntimeError(child.result["failure"])
    return child.result["outcome"]


def _code(recipe: Path, overrides: Sequence[str]) -> list[str]:
    """Return the existing files and the modules of code that a recipe names."""
    values = read_values(recipe, overrides).values
    data = values.get("data")
    named = [values.get("criterion"), data.get("augment") if isinstance(data, Mapping) else None]
    files = [str(file) for file in code_files(named, recipe.parent) if file.is_file()]
    return [*files, *(f"module {name}" for name in module_names(named))]


def _run_verb(request: dict[str, Any]) -> dict[str, Any]:
    """Return the outcome of a verb, the problems of an InputError, or the message of a failure."""
    from detr_ft.cli.text import describe_check, describe_probe_outcome
    from detr_ft.workflows.check import check
    from detr_ft.workflows.probe import probe

    recipe, overrides = Path(request["recipe"]), request["overrides"]
    try:
        if request["verb"] == "probe":
            return {"outcome": describe_probe_outcome(probe(recipe, overrides))}
        outcome = check(recipe, overrides)
        return {
            "outcome": {
                "problems": outcome.problems,
                "missing": outcome.missing,
                "text": "" if outcome.problems else describe_check(recipe, outcome, request["probe"]),
            }
        }
    except InputError as error:
        return {"problems": error.problems}
    except BaseException as error:  # noqa: BLE001 - the boundary of the process
        raise_if_interrupt(error)
        if debugging():
            traceback.print_exc()
        return {"failure": (isinstance(error, Exception) and str(error)) or describe_error(error)}


if __name__ == "__main__":
    import detr_ft.cli.text  # noqa: F401 - loads torch before the limit begins

    set_up_logging()
    logging.getLogger(components.__name__).setLevel(logging.WARNING)  # the command has announced the code
    serve(_run_verb)
