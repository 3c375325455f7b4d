"""Data loading for one process: the micro-batches of each optimizer step, prefetched by workers."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from detr_ft.data.pipeline.dataset import TrainDataset, collate
from detr_ft.data.pipeline.sampling import BatchSampler, shard_batch
from detr_ft.errors import InputError

ExampleIndex = tuple[int, int]  # epoch, row of the split


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
    image rounded up to a multiple of `rounding` pixels. Raises InputError for an unreadable image, ExampleError if the
    augmentation fails.
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

    @property
    def steps_per_epoch(self) -> int:
        """The number of optimizer steps in an epoch."""
        return len(self.batches)

    @property
    def total_steps(self) -> int:
        """The number of optimizer steps in all epochs."""
        return self.epochs * self.steps_per_epoch

    def steps(self, epoch: int = 0, index: int = 0) -> Iterator[StepBatch]:
        """Yield the batches of all steps from one on, to the last of the last epoch."""
        loader: DataLoader[Any] = DataLoader(
            _Examples(self.examples),
            batch_sampler=_MicroBatchSampler(self, epoch, index),
            num_workers=self.workers,
            collate_fn=partial(_collate, canvas=self.canvas, rounding=self.rounding),
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # the loader draws a seed for its workers, which must not move the global state
        )
        inputs = iter(loader)
        for step_epoch, step_index, images, parts in self.plan(epoch, index):
            micro_batches = [
                MicroBatch(_checked(next(inputs)), part or self.placeholder(step_epoch, step_index), bool(part))
                for part in parts
            ]
            yield StepBatch(step_epoch, step_index, images, micro_batches)

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
    """Examples by (epoch, row), with failures as values."""

    def __init__(self, examples: TrainDataset) -> None:
        self._examples = examples

    def __getitem__(self, position: ExampleIndex) -> dict[str, Any] | ExampleFailure:
        try:
            return self._examples.at(*position)
        except InputError as error:
            return ExampleFailure(error)
        except Exception as error:  # noqa: BLE001 - the user's augmentation may raise any exception
            return ExampleFailure(self._explained(error, position[1]))

    def _explained(self, error: Exception, row: int) -> ExampleError:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        image_id = self._examples.split[row]["image_id"]
        where = f"{frame.filename}, line {frame.lineno}"
        return ExampleError(f"image {image_id}: augmentation failed: {type(error).__name__}: {error} ({where})")


def _collate(
    examples: list[dict[str, Any] | ExampleFailure], canvas: tuple[int, int] | None, rounding: int
) -> dict[str, Any] | ExampleFailure:
    failure = next((example for example in examples if isinstance(example, ExampleFailure)), None)
    return failure or collate([example for example in examples if isinstance(example, dict)], canvas, rounding)


def _checked(inputs: dict[str, Any] | ExampleFailure) -> dict[str, Any]:
    if isinstance(inputs, ExampleFailure):
        raise inputs.error
    return inputs


def _ignore_signals(worker: int) -> None:
    """Ignore Ctrl-C and SIGTERM, which would end workers before the run has saved its state."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
