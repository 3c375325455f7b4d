"""A running average of the weights, which often detects better than the last weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detr_ft.errors import InputError


class Ema:
    """A moving average, in fp32, of the trained parameters and of the statistics of live norms.

    Averaging of weights is Polyak and Juditsky's (SIAM J. Control Optim. 30, 1992); RT-DETR, D-FINE and RF-DETR evaluate and
    release such averages. Tensors are looked up by name at each call, so the model may be moved and its norms exchanged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.names = _averaged_names(model)
        self.shadow = [tensor.detach().to(torch.float32, copy=True) for tensor in self._live()]
        self._raw: list[Tensor] | None = None  # the weights of the model while it has the average

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after the `step`-th step of the optimizer, from 1.

        The decay rises to its value as (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage: the initial weights
        lose their influence within a short run.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, [tensor.float() for tensor in self._live()], 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Give the model the average within the context, and then its own weights again, bit for bit."""
        self._raw = [tensor.detach().clone() for tensor in self._live()]
        self._put(self.shadow)
        try:
            yield
        finally:
            self._put(self._raw)
            self._raw = None

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Give the model its own weights within the context, if it is within `swapped`."""
        if self._raw is None:
            yield
            return
        self._put(self._raw)
        try:
            yield
        finally:
            self._put(self.shadow)

    @torch.no_grad()
    def restart(self) -> None:
        """Make the present weights the average."""
        torch._foreach_copy_(self.shadow, self._live())

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average, by the names of the model."""
        return dict(zip(self.names, self.shadow, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved average. Raises InputError if its tensors are not those that are averaged here."""
        own = self.state_dict()
        different = [name for name in sorted({*own, *state}) if _shape(own, name) != _shape(state, name)]
        if different:
            raise InputError(
                f"the saved average of the weights does not fit the model: {len(different)} of its tensors differ, the first "
                f"is {different[0]}. Resume with the model.freeze and the classes of the start of the run."
            )
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def _live(self) -> list[Tensor]:
        tensors = self.model.state_dict(keep_vars=True)
        return [tensors[name] for name in self.names]

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self._live(), values)


def _averaged_names(model: nn.Module) -> list[str]:
    """Return the names of the trained parameters and of the statistics of live norms."""
    parameters = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    statistics = [
        f"{name}.{own}" if name else own
        for name, module in norms
        for own, buffer in module.named_buffers(recurse=False)
        if buffer.is_floating_point()
    ]
    return parameters + statistics


def _shape(state: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return state[name].shape if name in state else None
