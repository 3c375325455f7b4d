"""Data loading for one process: the micro-batches of each optimizer step, prefetched by workers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from detr_ft.data import images as image_files
from detr_ft.data.pipeline.dataset import TrainDataset, collate
from detr_ft.data.pipeline.sampling import BatchSampler, shard_batch
from detr_ft.data.schema import provenance
from detr_ft.errors import InputError
from detr_ft.training.loader_workers import (
    dead_workers_raise_nothing,
    ended_workers,
    error_of_worker,
    set_up_worker,
    statuses_of_workers,
    stuck_worker_ends_after,
)
from detr_ft.utils.code_places import files_in_stack, place_in_stack, place_in_traceback
from detr_ft.utils.daemon_threads import DaemonThreads, TimeLimitError, result_within

ExampleIndex = tuple[int, int]  # epoch, row of the split

_MAX_CLOSING_SECONDS = 1.0
_STUCK_SECONDS = 10.0  # after the time limit of an image, for a worker that cannot report it


class ExampleError(RuntimeError):
    """The user's augmentation failed. Names the image, the file and the line."""


@dataclass(frozen=True)
class ExampleFailure:
    """An error in place of an example. A worker that raised it would lose its image."""

    error: InputError | ExampleError


@dataclass(frozen=True)
class MicroBatch:
    """Images that pass through the model at once, with their rows of the split.

    A process without images of a step gets a placeholder, an image of the step with `counts` False, so that it takes part
    in the collectives; its gradient is multiplied by 0.
    """

    inputs: dict[str, Any]
    rows: list[int]
    counts: bool

    def split(self, size: int) -> list[MicroBatch]:
        """Return the same images in parts of at most `size`, with the padding they have together."""
        images = len(self.rows)
        return [self._part(slice(start, start + size)) for start in range(0, images, size)] if images > size else [self]

    def _part(self, images: slice) -> MicroBatch:
        return MicroBatch(
            {name: values[images] for name, values in self.inputs.items()}, self.rows[images], self.counts
        )


@dataclass(frozen=True)
class StepBatch:
    """The batch of an optimizer step: `images` of all processes, `micro_batches` of this one."""

    epoch: int  # from 0
    index: int  # in the epoch, from 0
    images: int
    micro_batches: list[MicroBatch]


@dataclass
class StepLoader:
    """The batches of one of several processes. A step has the same images for any number of processes.

    `micro_batch_size` limits the images of a micro-batch. Batches are padded to `canvas` (height, width), or to the largest
    image rounded up to a multiple of `rounding` pixels. Raises InputError for an unreadable image, and for one that takes
    longer than `timeout` seconds; ExampleError if the augmentation fails; WorkerError if a worker was killed.
    """

    examples: TrainDataset
    batches: BatchSampler
    epochs: int
    micro_batch_size: int
    process: int
    processes: int
    workers: int
    canvas: tuple[int, int] | None
    rounding: int
    timeout: float

    @property
    def steps_per_epoch(self) -> int:
        """The number of optimizer steps in an epoch."""
        return len(self.batches)

    @property
    def total_steps(self) -> int:
        """The number of optimizer steps in all epochs."""
        return self.epochs * self.steps_per_epoch

    def steps(self, epoch: int = 0, index: int = 0) -> Generator[StepBatch, None, None]:
        """Yield the batches of all steps from one on, to the last of the last epoch."""
        examples = _Examples(self.examples, self.timeout)
        loader: DataLoader[Any] = DataLoader(
            examples,
            batch_sampler=_MicroBatchSampler(self, epoch, index),
            num_workers=self.workers,
            collate_fn=partial(_collate, canvas=self.canvas, rounding=self.rounding),
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=set_up_worker,
            generator=torch.Generator(),  # the loader draws a seed for its workers, which must not move the global state
        )
        inputs = iter(loader)
        with dead_workers_raise_nothing(), ended_workers(inputs), closing(examples):
            for step_epoch, step_index, images, parts in self.plan(epoch, index):
                micro_batches = []
                for part in parts:
                    rows = part or self.placeholder(step_epoch, step_index)
                    micro_batches.append(MicroBatch(self._next(inputs, rows), rows, bool(part)))
                yield StepBatch(step_epoch, step_index, images, micro_batches)

    def _next(self, inputs: Iterator[Any], rows: Sequence[int]) -> dict[str, Any]:
        """Wait for the inputs of these rows."""
        try:
            result = next(inputs)
        except Exception as error:  # RuntimeError, or OSError for a batch of which a killed worker has the memory
            statuses = statuses_of_workers(inputs)
            if not statuses:
                raise
            names = ", ".join(_name(self.examples, row) for row in rows)
            raise error_of_worker(statuses[0], names, self.timeout) from error
        if isinstance(result, ExampleFailure):
            raise result.error
        inputs_of_rows: dict[str, Any] = result
        return inputs_of_rows

    def plan(self, epoch: int, index: int) -> Iterator[tuple[int, int, int, list[list[int]]]]:
        """Yield epoch, index, number of images and this process's rows of every step from one on."""
        for step_epoch in range(epoch, self.epochs):
            for step_index, batch in enumerate(self.batches.of_epoch(step_epoch)):
                if step_epoch > epoch or step_index >= index:
                    yield step_epoch, step_index, len(batch), self.own_rows(batch)

    def placeholder(self, epoch: int, index: int) -> list[int]:
        """Return the row that is read for an empty micro-batch: the first image of its step."""
        return self.batches.of_epoch(epoch)[index][:1]

    def own_rows(self, batch: list[int]) -> list[list[int]]:
        """Return the rows of this process's micro-batches of a step."""
        return shard_batch(batch, self.micro_batch_size, self.processes)[self.process]


class _MicroBatchSampler(Sampler[list[ExampleIndex]]):
    """The examples of each micro-batch, for the workers of the loader."""

    def __init__(self, loader: StepLoader, epoch: int, index: int) -> None:
        self._loader, self._start = loader, (epoch, index)

    def __iter__(self) -> Iterator[list[ExampleIndex]]:
        for epoch, index, _, parts in self._loader.plan(*self._start):
            for part in parts:
                yield [(epoch, row) for row in part or self._loader.placeholder(epoch, index)]


class _Examples(TorchDataset[Any]):
    """Examples by (epoch, row), made in a thread, with failures as values; none follows a failure.

    The main thread only waits: it notices an example that takes too long, and signals, whatever code makes the example.
    """

    def __init__(self, examples: TrainDataset, timeout: float) -> None:
        self._examples, self._timeout = examples, timeout
        self._thread: DaemonThreads | None = None

    def __getitems__(self, positions: Sequence[ExampleIndex]) -> list[dict[str, Any] | ExampleFailure]:
        made: list[dict[str, Any] | ExampleFailure] = []
        for position in positions:
            made.append(self._within_limit(position))
            if isinstance(made[-1], ExampleFailure):
                break
        return made

    def close(self) -> None:
        """End the thread, unless it hangs."""
        if self._thread is not None:
            self._thread.close(_MAX_CLOSING_SECONDS)

    def _within_limit(self, position: ExampleIndex) -> dict[str, Any] | ExampleFailure:
        thread = self._thread = self._thread or DaemonThreads(1)
        with stuck_worker_ends_after(self._timeout + _STUCK_SECONDS):
            try:
                return result_within(thread.submit(partial(self._made, position)), self._timeout)
            except TimeLimitError:
                self._thread = None
                return ExampleFailure(self._overdue(thread, position[1]))

    def _made(self, position: ExampleIndex) -> dict[str, Any] | ExampleFailure:
        try:
            return self._examples.at(*position)
        except InputError as error:
            return ExampleFailure(InputError(error.problems))  # subclasses may not survive the way from a worker
        except BaseException as error:  # noqa: BLE001 - the user's augmentation may raise anything, also SystemExit
            return ExampleFailure(self._explained(error, position[1]))

    def _explained(self, error: BaseException, row: int) -> ExampleError:
        name, place = _name(self._examples, row), place_in_traceback(error.__traceback__)
        return ExampleError(f"{name}: {self._activity} failed: {type(error).__name__}: {error} ({place})")

    def _overdue(self, thread: DaemonThreads, row: int) -> InputError:
        place, activity = "", self._activity
        for frame in thread.frames():
            place = f" ({place_in_stack(frame)})"
            if image_files.__file__ in files_in_stack(frame):
                place, activity = "", "reading the file"
        return InputError(
            f"{_name(self._examples, row)}: {activity} took longer than {self._timeout:g} s{place}. Correct the code or "
            "replace the file, or raise train.dataloader_timeout"
        )

    @property
    def _activity(self) -> str:
        return "reading" if self._examples.transform.augment is None else "augmentation"


def _name(examples: TrainDataset, row: int) -> str:
    image = examples.split.with_format(None).select_columns(["image", "image_id"])[row]
    return provenance(image["image"], image["image_id"])


def _collate(
    examples: list[dict[str, Any] | ExampleFailure], canvas: tuple[int, int] | None, rounding: int
) -> dict[str, Any] | ExampleFailure:
    failure = next((example for example in examples if isinstance(example, ExampleFailure)), None)
    return failure or collate([example for example in examples if isinstance(example, dict)], canvas, rounding)
