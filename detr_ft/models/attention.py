"""Attention maps and tensor shapes of a DETR on one image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel

from detr_ft.models.families import family_of
from detr_ft.models.predict import batches_of, inference


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention maps of one image.

    `shapes` are those of the tensors at each stage, `grid` is (height, width) of the encoder's tokens. `encoder [N, N]`
    is the attention of each token to each token in the last layer, averaged over heads; `decoder [L, Q, N]` that of
    each query at each decoder layer. N is height times width of the image alone, without padding.
    """

    shapes: dict[str, tuple[int, ...]]
    grid: tuple[int, int]
    encoder: Tensor
    decoder: Tensor

    def token_at(self, x: float, y: float) -> int:
        """Return the index of the token at a point, in fractions of the image."""
        height, width = self.grid
        row = min(height - 1, max(0, int(y * height)))
        return row * width + min(width - 1, max(0, int(x * width)))

    def as_map(self, weights: Tensor) -> Tensor:
        """Return `[N]` as `[height, width]`, scaled to a maximum of 1."""
        shaped = weights.reshape(self.grid)
        return shaped / shaped.max().clamp(min=1e-12)


@torch.no_grad()
def attention_maps(model: PreTrainedModel, processor: Any, image: Image.Image) -> AttentionMaps:
    """Run a model on an image and return its attention.

    Raises InputError for a family whose attention cannot be read.
    """
    family_of(model).check_supports("attention")
    ((pixels, mask),) = batches_of(processor, [image], batch_size=1)
    shapes: dict[str, tuple[int, ...]] = {"pixels": tuple(pixels.shape[1:])}
    with inference(model), _eager_attention(model), _recorded_shapes(model, shapes):
        outputs = model(
            pixel_values=pixels.to(model.device, model.dtype), pixel_mask=mask.to(model.device), output_attentions=True
        )
    height, width = shapes["features of the backbone"][1:]
    valid = nn.functional.interpolate(mask[None].float(), size=(height, width))[0, 0].bool()
    inner = (int(valid.any(1).sum()), int(valid.any(0).sum()))
    keep = valid.flatten().to(outputs.logits.device)
    encoder = outputs.encoder_attentions[-1][0].mean(0)[keep][:, keep]
    decoder = torch.stack([layer[0].mean(0)[:, keep] for layer in outputs.cross_attentions])
    shapes |= {
        "queries": tuple(outputs.last_hidden_state.shape[1:]),
        "class logits": tuple(outputs.logits.shape[1:]),
        "boxes": tuple(outputs.pred_boxes.shape[1:]),
    }
    return AttentionMaps(shapes, inner, encoder.float().cpu(), decoder.float().cpu())


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use the attention that returns its weights, and restore the faster one afterwards."""
    # In the transformer only: `set_attn_implementation` visits the backbone too, and a ResNet has no attention to restore.
    config: Any = model.config
    before = config._attn_implementation_internal
    config._attn_implementation_internal = "eager"
    try:
        yield
    finally:
        config._attn_implementation_internal = before


@contextmanager
def _recorded_shapes(model: PreTrainedModel, shapes: dict[str, tuple[int, ...]]) -> Iterator[None]:
    """Record the shapes before and after the projection of the backbone's features."""

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes["features of the backbone"] = tuple(inputs[0].shape[1:])
        shapes["projected to the width of the transformer"] = tuple(output.shape[1:])
        shapes["tokens of the encoder"] = (output.shape[2] * output.shape[3], output.shape[1])

    family = family_of(model)
    hook = family.module(model, family.projection).register_forward_hook(record)
    try:
        yield
    finally:
        hook.remove()
