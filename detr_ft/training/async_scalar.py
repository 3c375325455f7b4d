"""A number that a device is still working out."""

from __future__ import annotations

import torch
from torch import Tensor


class AsyncScalar:
    """A number of a device, on its way to the host, which waits for it in `value` alone, and there only if it has not come."""

    def __init__(self, number: Tensor) -> None:
        self._host = number.to("cpu", non_blocking=True)
        self._done: torch.cuda.Event | None = None
        if number.device.type == "cuda":
            self._done = torch.cuda.Event()
            self._done.record()

    def value(self) -> float:
        """The number."""
        if self._done is not None:
            self._done.synchronize()
        return self._host.item()
