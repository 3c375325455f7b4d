"""What a process is fed: its micro-batches of every step, read ahead by workers, epoch after epoch."""

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

Item = tuple[int, int]  # epoch, index


class ExampleError(RuntimeError):
    """An example that can't be made, since the code that augments it failed. Says of which image, and where."""


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the model at once, of which rows of the split; `counts` is False for a mere stand-in.

    For an empty share an image of the step goes through the model, so that processes stay together, and counts nothing.
    """

    inputs: dict[str, Any]
    rows: list[int]
    counts: bool

    def split(self, size: int) -> list[MicroBatch]:
        """The same images in parts of at most `size`, padded as they were together."""
        images = len(self.rows)
        return [self._part(slice(start, start + size)) for start in range(0, images, size)] if images > size else [self]

    def _part(self, images: slice) -> MicroBatch:
        return MicroBatch(
            {name: values[images] for name, values in self.inputs.items()}, self.rows[images], self.counts
        )


@dataclass(frozen=True)
class StepBatch:
    """A step: its epoch, its place in the epoch (both from 0), its images on all processes, and this process's share."""

    epoch: int
    place: int
    images: int
    share: list[MicroBatch]


class StepLoader:
    """The share of one of `processes` in every step. The same steps hold the same images on any number of them.

    Raises InputError where an image can't be read, ExampleError where the user's augmentation fails.
    """

    def __init__(
        self,
        examples: TrainDataset,
        batches: BatchSampler,
        epochs: int,
        micro_size: int,
        process: int,
        processes: int,
        workers: int,
        canvas: tuple[int, int] | None,
        rounding: int,
    ) -> None:
        self.examples, self.batches, self.epochs, self.workers = examples, batches, epochs, workers
        self.canvas, self.rounding = canvas, rounding
        self._size, self._process, self._processes = micro_size, process, processes

    def steps(self, epoch: int = 0, place: int = 0) -> Iterator[StepBatch]:
        """Every step from one on, to the last of the last epoch."""
        loader: DataLoader[Any] = DataLoader(
            _Tried(self.examples),
            batch_sampler=_Items(self, epoch, place),
            num_workers=self.workers,
            collate_fn=partial(_collate, canvas=self.canvas, rounding=self.rounding),
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_leave_signals_to_the_run,
            generator=torch.Generator(),  # a loader draws a seed for its workers, and not from the model's numbers
        )
        made = iter(loader)
        for at, number, images, parts in self.plan(epoch, place):
            share = [MicroBatch(_sound(next(made)), part or self.stand_in(at, number), bool(part)) for part in parts]
            yield StepBatch(at, number, images, share)

    def plan(self, epoch: int, place: int) -> Iterator[tuple[int, int, int, list[list[int]]]]:
        """Epoch, place, images and this process's indices of every step from one on."""
        for at in range(epoch, self.epochs):
            for number, batch in enumerate(self.batches.of_epoch(at)):
                if at > epoch or number >= place:
                    yield at, number, len(batch), self.share(batch)

    def stand_in(self, epoch: int, place: int) -> list[int]:
        """What is read for an empty share: an image of its step, since every step has one."""
        return self.batches.of_epoch(epoch)[place][:1]

    def share(self, batch: list[int]) -> list[list[int]]:
        """The micro-batches of a step that are this process's."""
        return shard_batch(batch, self._size, self._processes)[self._process]


class _Items(Sampler[list[Item]]):
    """What the loader's workers are to read."""

    def __init__(self, feed: StepLoader, epoch: int, place: int) -> None:
        self._feed, self._from = feed, (epoch, place)

    def __iter__(self) -> Iterator[list[Item]]:
        for epoch, place, _, parts in self._feed.plan(*self._from):
            for part in parts:
                yield [(epoch, index) for index in part or self._feed.stand_in(epoch, place)]


class _Tried(TorchDataset[Any]):
    """Examples by (epoch, index). What goes wrong is answered, since a worker that raises tells of itself, not the image."""

    def __init__(self, examples: TrainDataset) -> None:
        self._examples = examples

    def __getitem__(self, item: Item) -> dict[str, Any] | Exception:
        try:
            return self._examples.at(*item)
        except InputError as error:
            return error
        except Exception as error:  # noqa: BLE001 - the user's augmentation may raise anything, and it is told below
            last = traceback.extract_tb(error.__traceback__)[-1]
            image_id = self._examples.split[item[1]]["image_id"]
            where = f"{last.filename}, line {last.lineno}"
            return ExampleError(f"image {image_id}: augmentation failed: {type(error).__name__}: {error} ({where})")


def _collate(
    examples: list[dict[str, Any] | Exception], canvas: tuple[int, int] | None, rounding: int
) -> dict[str, Any] | Exception:
    failed = next((one for one in examples if isinstance(one, Exception)), None)
    return failed or collate([one for one in examples if isinstance(one, dict)], canvas, rounding)


def _sound(made: dict[str, Any] | Exception) -> dict[str, Any]:
    if isinstance(made, Exception):
        raise made
    return made


def _leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach workers too, which would die before the run has saved its state."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
