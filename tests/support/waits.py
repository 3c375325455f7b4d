"""What would wait for a GPU, counted on any machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

# What waits for a GPU: a value that Python reads, and results whose size depends on values.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero"}


class Waits(TorchDispatchMode):
    """Counts the operations that would wait for a GPU, the reading of a boolean index among them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in {"index", "index_put", "index_put_"} and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in WAITING or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What waits in here: by the dispatcher, and by methods that bring a tensor to the host."""
    waits = Waits()
    for name in ("cpu", "numpy", "tolist", "item"):
        method = getattr(torch.Tensor, name)

        def watched(self: torch.Tensor, *args: Any, _name: str = name, _method: Any = method) -> Any:
            if _name != "numpy":  # the way on from the host
                waits.seen.append(_name)
            return _method(self, *args)

        monkeypatch.setattr(torch.Tensor, name, watched)
    with waits:
        yield waits.seen
    monkeypatch.undo()
