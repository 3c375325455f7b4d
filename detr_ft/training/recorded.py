"""Work of a GPU that is recorded once and then started as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_REHEARSALS = (
    3  # before a recording, for what libraries choose and allocate at first; as torch.cuda's own documentation has it
)


class Pool:
    """The memory that recordings share, where none of them is needed any more once the next has begun."""

    def __init__(self) -> None:
        self.handle: Any = torch.cuda.graph_pool_handle()

    def random_state(self) -> torch.Tensor:
        """Where the GPU's random numbers are."""
        return torch.cuda.get_rng_state()

    def restore_random(self, state: torch.Tensor) -> None:
        """Let them go on from there: what was drawn for a recording was no step's."""
        torch.cuda.set_rng_state(state)

    def rehearse(self, work: Callable[[], None]) -> None:
        """Do the work a few times, beside what the GPU does now."""
        stream, now = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(now)
        with torch.cuda.stream(stream):
            for _ in range(_REHEARSALS):
                work()
        now.wait_stream(stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What does the same work again, on the same memory: it reads and leaves tensors where they were. A CUDA graph."""
        graph = torch.cuda.CUDAGraph()
        # Loader threads pin memory meanwhile, which would spoil a recording of the whole process.
        with torch.cuda.graph(graph, pool=self.handle, capture_error_mode="thread_local"):
            work()
        replay: Callable[[], None] = graph.replay
        return replay
