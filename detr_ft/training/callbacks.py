"""Callbacks: the user's code at each step, evaluation and save of a run."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from detr_ft.errors import InputError
from detr_ft.evaluation.metrics import TrainingEnd
from detr_ft.structures import Detections


class CallbackError(RuntimeError):
    """A callback raised an exception. Names the callback, its method, the file and the line."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a run: metrics, detections in the order of the split, log and time.

    `better` is a sentence on an evaluation with a better metric than that of the saved model; empty if there is none.
    `end` has the epochs done and planned, why the run ended before the last, and the diagnosis of an mAP near 0.
    """

    metrics: dict[str, Any]
    detections: list[Detections]
    log: list[dict[str, Any]]
    seconds: float
    better: str
    end: TrainingEnd


class Callback:
    """Code that runs during training; override the methods you need. All do nothing here.

    Every process of a run calls `on_step` and `on_evaluate`, at the same step; the main process alone calls `on_save` and
    `on_end`. A callback does not change what is trained, even if it draws random numbers, unless it changes the model that
    it gets. An exception ends the run with a CallbackError; its checkpoints stay, so it can be resumed.

    >>> class PrintLoss(Callback):
    ...     def on_step(self, model, step, terms, row):
    ...         if row is not None:
    ...             print(step, row["loss"])
    """

    def on_step(self, model: nn.Module, step: int, terms: Mapping[str, Tensor], row: Mapping[str, Any] | None) -> None:
        """Called after the `step`-th optimizer step, from 1, with the weights after it, in training mode.

        `terms` has `loss` and each of its terms, unweighted, over this process's images of the step: scalars `[]` on the
        device, without gradient; reading a value synchronizes the device. `row` is the row of `log.jsonl` at logging steps,
        else None.
        """

    def on_evaluate(
        self, model: nn.Module, step: int, metrics: Mapping[str, Any], detections: Sequence[Detections]
    ) -> None:
        """Called after an evaluation, with the evaluated weights: the averaged ones, if the run averages.

        `metrics` are those of `metrics.json`. `detections` has an entry for each image of the split, in its order: `boxes
        [N, 4]` (xyxy, pixels of the image), `scores [N]`, `labels [N]`, on the CPU, N at most 100.
        """

    def on_save(self, folder: Path, step: int) -> None:
        """Called after a save: of a checkpoint, the best model so far, or at the end the model of the run."""

    def on_end(self, result: TrainResult) -> None:
        """Called once after the model of the run was saved; not if the run was interrupted or failed."""


class Callbacks(Callback):
    """Several callbacks, called in order as one.

    `newest_checkpoint` returns that of the run, for messages. Raises InputError for objects that are no callbacks.
    """

    def __init__(
        self, callbacks: Sequence[Callback], newest_checkpoint: Callable[[], Path | None] = lambda: None
    ) -> None:
        check_callbacks(callbacks)
        self._callbacks, self._newest_checkpoint = tuple(callbacks), newest_checkpoint

    def on_step(self, model: nn.Module, step: int, terms: Mapping[str, Tensor], row: Mapping[str, Any] | None) -> None:
        """Call each callback after a step."""
        for callback in self._callbacks:
            with self._naming(callback, "on_step", model):
                callback.on_step(model, step, terms, row)

    def on_evaluate(
        self, model: nn.Module, step: int, metrics: Mapping[str, Any], detections: Sequence[Detections]
    ) -> None:
        """Call each callback after an evaluation."""
        for callback in self._callbacks:
            with self._naming(callback, "on_evaluate", model):
                callback.on_evaluate(model, step, metrics, detections)

    def on_save(self, folder: Path, step: int) -> None:
        """Call each callback after files were written."""
        for callback in self._callbacks:
            with self._naming(callback, "on_save"):
                callback.on_save(folder, step)

    def on_end(self, result: TrainResult) -> None:
        """Call each callback at the end."""
        for callback in self._callbacks:
            with self._naming(callback, "on_end"):
                callback.on_end(result)

    @contextmanager
    def _naming(self, callback: Callback, method: str, model: nn.Module | None = None) -> Iterator[None]:
        """Name the callback in its exceptions, and restore the mode of the model."""
        training = model is not None and model.training
        try:
            yield
        except Exception as error:  # the user's callback may raise any exception
            frame = traceback.extract_tb(error.__traceback__)[-1]
            newest = self._newest_checkpoint()
            again = "start the run again" if newest is None else f"resume the run from {newest}"
            raise CallbackError(
                f"callback {type(callback).__name__}.{method}: {type(error).__name__}: {error} "
                f"({frame.filename}, line {frame.lineno}). Correct the callback, and {again}."
            ) from error
        if model is not None and model.training != training:
            model.train(training)


def check_callbacks(callbacks: object) -> None:
    """Raise InputError with every object that is no callback, and every misspelled method."""
    if isinstance(callbacks, Callback):
        raise InputError(f"callbacks: must be a list, got a {type(callbacks).__name__}. Write callbacks=[...].")
    if not isinstance(callbacks, (list, tuple)):
        raise InputError(f"callbacks: must be a list, got {callbacks!r}. Write callbacks=[MyCallback()].")
    problems = [problem for callback in callbacks for problem in _problems(callback)]
    if problems:
        raise InputError([f"callbacks: {problem}" for problem in problems])


def _problems(callback: object) -> list[str]:
    name = callback.__name__ if isinstance(callback, type) else type(callback).__name__
    if isinstance(callback, type) and issubclass(callback, Callback):
        return [f"{name} is a class. Write {name}()."]
    if not isinstance(callback, Callback):
        return [f"{callback!r} is no callback. Derive a class from detr_ft.Callback, and override its methods."]
    methods = [method for method in vars(Callback) if method.startswith("on_")]
    return [
        f"{name}.{method} is never called. {_remedy(method, methods)}"
        for method in dir(callback)
        if method.startswith("on_") and method not in methods and callable(getattr(callback, method))
    ]


def _remedy(method: str, methods: Sequence[str]) -> str:
    close = difflib.get_close_matches(method, methods, 1)
    return f"Rename it to {close[0]}." if close else f"The methods are {', '.join(methods)}; rename it."
