"""A running average of the weights, which often finds more than the last of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detr_ft.errors import InputError


class Ema:
    """An average in fp32 of the parameters that train and of the running figures of norms that do.

    Averaging of weights is Polyak and Juditsky's (SIAM J. Control Optim. 30, 1992); with a decay it is what RT-DETR,
    D-FINE and RF-DETR evaluate and release. Tensors are found by their names at each call, so the model may be moved
    and its norms exchanged meanwhile.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.names = _moving(model)
        self.shadow = [tensor.detach().to(torch.float32, copy=True) for tensor in self._live()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after the `step`-th step of the optimizer, from 1.

        The decay rises to its value as (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage: the random or
        foreign weights of the start are forgotten within a short run.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, [tensor.float() for tensor in self._live()], 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The model holds the average inside, and after it the very bits that it held before, whatever happens."""
        raw = [tensor.detach().clone() for tensor in self._live()]
        self._put(self.shadow)
        try:
            yield
        finally:
            self._put(raw)

    def state_dict(self) -> dict[str, Tensor]:
        """The average, by the names of the model."""
        return dict(zip(self.names, self.shadow, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved average. Raises InputError where it is of other weights than those that train here."""
        own = self.state_dict()
        strange = [name for name in sorted({*own, *state}) if _shape(own, name) != _shape(state, name)]
        if strange:
            raise InputError(
                f"the saved average of the weights does not fit the model: {len(strange)} of its tensors differ, the "
                f"first is {strange[0]}; resume with the model.freeze and the classes that the run began with"
            )
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def _live(self) -> list[Tensor]:
        held = self.model.state_dict(keep_vars=True)
        return [held[name] for name in self.names]

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self._live(), values)


def _moving(model: nn.Module) -> list[str]:
    """The names of what training moves: parameters that require a gradient, running means and variances of live norms."""
    parameters = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    figures = [
        f"{name}.{own}" if name else own
        for name, module in norms
        for own, buffer in module.named_buffers(recurse=False)
        if buffer.is_floating_point()
    ]
    return parameters + figures


def _shape(state: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return state[name].shape if name in state else None
