"""A DETR whose forward pass does not synchronize with the GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.detr.modeling_detr import DetrDecoder, DetrEncoder, DetrEncoderLayer

from detr_ft.models.families import family_of


class NoSyncEncoder(DetrEncoder):
    """The encoder with its mask in the final shape: transformers then does not read the mask."""

    def forward(self, *args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """Run the encoder of transformers."""
        return super().forward(*args, attention_mask=_broadcastable(self, attention_mask), **kwargs)


class NoSyncDecoder(DetrDecoder):
    """The decoder with the mask of the image in its final shape."""

    def forward(self, *args: Any, encoder_attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """Run the decoder of transformers."""
        return super().forward(*args, encoder_attention_mask=_broadcastable(self, encoder_attention_mask), **kwargs)


class NoSyncEncoderLayer(DetrEncoderLayer):
    """The encoder layer with infinite values always clamped, without reading whether there are any."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        spatial_position_embeddings: Tensor | None = None,
        **kwargs: Any,  # passed by transformers from layer to layer
    ) -> Tensor:
        """Return `[B, S, D]`, as the layer of transformers does."""
        attended, _ = self.self_attn(
            hidden_states=hidden_states,
            attention_mask=attention_mask,
            position_embeddings=spatial_position_embeddings,
            **kwargs,
        )
        attended = functional.dropout(attended, p=self.dropout, training=self.training)
        middle = self.self_attn_layer_norm(hidden_states + attended)
        output: Tensor = self.final_layer_norm(middle + self.mlp(middle))
        if not self.training:
            return output
        limit = torch.finfo(output.dtype).max - 1000
        return output.clamp(-limit, limit)


_NO_SYNC: dict[type, type] = {
    DetrEncoder: NoSyncEncoder,
    DetrDecoder: NoSyncDecoder,
    DetrEncoderLayer: NoSyncEncoderLayer,
}
_STOCK = {changed: stock for stock, changed in _NO_SYNC.items()}


def apply(model: PreTrainedModel) -> None:
    """Remove the synchronizations of a forward pass, in place; outputs and gradients stay the same.

    transformers reads in every encoder layer whether a value is infinite, and twice whether there is padding before it
    makes the masks. Models of other families stay as they are.
    """
    if "no_sync" in family_of(model).supports:
        _replace_classes(model, _NO_SYNC)


def revert(model: PreTrainedModel) -> None:
    """Restore the modules of transformers, in place."""
    _replace_classes(model, _STOCK)


def _replace_classes(model: PreTrainedModel, classes: dict[type, type]) -> None:
    for module in model.modules():
        if type(module) in classes:
            module.__class__ = classes[type(module)]


def _broadcastable(module: Any, mask: Tensor | None) -> Tensor | None:
    """Return a mask `[B, S]` as `[B, 1, 1, S]`, which transformers uses as it is."""
    # Attention implementations other than sdpa add masks instead of selecting by them.
    if mask is None or mask.ndim != 2 or module.config._attn_implementation != "sdpa":
        return mask
    return mask.bool()[:, None, None]
