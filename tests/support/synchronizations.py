"""Operations that would synchronize with a GPU, counted on any machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Values that Python reads, and results whose size depends on values.
SYNCHRONIZING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero"}


class SynchronizationCounter(TorchDispatchMode):
    """Records the operations that would synchronize with a GPU, including boolean indexing."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in {"index", "index_put", "index_put_"} and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in SYNCHRONIZING or by_mask:
            self.operations.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def count_synchronizations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Record synchronizing operations of the dispatcher, and methods that copy a tensor to the host."""
    counter = SynchronizationCounter()
    for name in ("cpu", "numpy", "tolist", "item"):
        method = getattr(torch.Tensor, name)

        def recorded(self: torch.Tensor, *args: Any, _name: str = name, _method: Any = method) -> Any:
            if _name != "numpy":  # copies nothing on the host
                counter.operations.append(_name)
            return _method(self, *args)

        monkeypatch.setattr(torch.Tensor, name, recorded)
    with counter:
        yield counter.operations
    monkeypatch.undo()
