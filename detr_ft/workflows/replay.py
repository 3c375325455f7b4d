"""Repeat a failed step."""

from __future__ import annotations

from pathlib import Path

from detr_ft.criterion.serialization import configure
from detr_ft.errors import InputError
from detr_ft.training.failures.capsule import describe_images
from detr_ft.training.failures.replay import Capsule, replay
from detr_ft.utils.components import ConfigureError, code_files
from detr_ft.utils.progress import console, say


def replay_capsule(folder: Path) -> str:
    """Take the step of a failure capsule again, and say what is wrong with it."""
    capsule = Capsule(folder)
    described, place = capsule.state["criterion"], Path(capsule.state["facts"].get("folder", "."))
    for file in code_files(described, place):
        say(f"{folder} runs code: {file}")
    try:
        criterion = configure(described, place)
    except ConfigureError as error:
        raise InputError(
            [f"{folder}: its criterion can't be built: {message}" for _, message in error.problems]
        ) from error
    say(f"step {capsule.number}, images {describe_images(capsule.images)}; then: {capsule.state['why']}")
    with console.status("taking the step again"):
        verdict = replay(capsule, criterion)
    if verdict is None:
        return (
            "Here the step can be taken: on a CPU, in its precision and with dropout of its own, every number is finite. "
            "If it fails again elsewhere, precision or hardware has a part in it (train with bf16 and fp16 off, or from a lower "
            "learning rate), or a term that does not answer the same twice"
        )
    return f"origin: {verdict.origin}\n{verdict.words}"
