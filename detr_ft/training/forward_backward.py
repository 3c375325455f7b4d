"""A forward pass, the criterion, and a backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from accelerate import Accelerator
from torch import Tensor


class ForwardBackward(Protocol):
    """How a batch goes through a model and back. `wrapped` is the model as accelerate prepared it."""

    wrapped: Callable[..., Any]

    def take(self, inputs: Mapping[str, Any], share: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradient of `share` times the loss of a batch to the parameters; answers the loss, unshared, and its terms."""


class EagerForwardBackward:
    """One operation after another, as the model and torch have them."""

    def __init__(self, accelerator: Accelerator, wrapped: Callable[..., Any]) -> None:
        self.wrapped = wrapped
        self._accelerator = accelerator

    def take(self, inputs: Mapping[str, Any], share: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradient of a batch."""
        outputs = self.wrapped(**inputs)
        self._accelerator.backward(share * outputs.loss)
        return outputs.loss, outputs.loss_dict
