"""A DETR that never waits for its GPU between layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DetrForObjectDetection
from transformers.models.detr.modeling_detr import DetrEncoderLayer


class SteadyEncoderLayer(DetrEncoderLayer):
    """The encoder's layer, with the clamp of infinite values always done rather than where the host finds one."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        spatial_position_embeddings: Tensor | None = None,
        **kwargs: Any,  # what transformers hands from layer to layer
    ) -> Tensor:
        """`[B, S, D]`, as the layer of transformers gives it."""
        attended, _ = self.self_attn(
            hidden_states=hidden_states,
            attention_mask=attention_mask,
            position_embeddings=spatial_position_embeddings,
            **kwargs,
        )
        attended = functional.dropout(attended, p=self.dropout, training=self.training)
        middle = self.self_attn_layer_norm(hidden_states + attended)
        told: Tensor = self.final_layer_norm(middle + self.mlp(middle))
        if not self.training:
            return told
        limit = torch.finfo(told.dtype).max - 1000
        return told.clamp(-limit, limit)


def stop_waiting(model: nn.Module) -> None:
    """Take out of a DETR, in place, what makes the host wait in each forward pass; outputs and gradients stay the same.

    transformers asks in every encoder layer whether a value is infinite, and twice whether there is padding at all, before
    it makes the masks. Other models are left alone.
    """
    if not isinstance(model, DetrForObjectDetection):
        return
    for layer in model.model.encoder.layers:
        if type(layer) is DetrEncoderLayer:
            layer.__class__ = SteadyEncoderLayer
    model.model.encoder.register_forward_pre_hook(_with_mask_of("attention_mask"), with_kwargs=True)
    model.model.decoder.register_forward_pre_hook(_with_mask_of("encoder_attention_mask"), with_kwargs=True)


def _with_mask_of(name: str) -> Any:
    """A hook that gives attention a mask `[B, 1, 1, S]` in place of `[B, S]`, which transformers takes as it is."""

    def prepare(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = kwargs.get(name)
        # The other implementations add masks rather than choose by them.
        if mask is None or mask.ndim != 2 or module.config._attn_implementation != "sdpa":
            return args, kwargs
        return args, kwargs | {name: mask.bool()[:, None, None]}

    return prepare
