"""What happens inside a DETR between an image and its answers: shapes on the way, and where it looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from detr_ft.models.families.family import Detr
from detr_ft.models.predict import batches_of, inference


@dataclass(frozen=True, eq=False)
class Inside:
    """One image: `shapes` by stage, the grid (height, width) of the encoder's tokens, and who looks where.

    `encoder [N, N]`: for each token, how much it attends to each, in the last layer, the mean of the heads; `decoder [L, Q, N]`: the
    same for each query at each decoder layer. N is height times width, of the image alone: padding is left out.
    """

    shapes: dict[str, tuple[int, ...]]
    grid: tuple[int, int]
    encoder: Tensor
    decoder: Tensor

    def token_at(self, across: float, down: float) -> int:
        """The token at a place, in fractions of the image."""
        height, width = self.grid
        row = min(height - 1, max(0, int(down * height)))
        return row * width + min(width - 1, max(0, int(across * width)))

    def as_map(self, weights: Tensor) -> Tensor:
        """`[N]` as `[height, width]`, the largest being 1."""
        shaped = weights.reshape(self.grid)
        return shaped / shaped.max().clamp(min=1e-12)


@torch.no_grad()
def look_inside(model: Detr, processor: Any, image: Image.Image) -> Inside:
    """Run a DETR on an image and keep what is of interest on the way."""
    ((pixels, mask),) = batches_of(processor, [image], batch_size=1)
    shapes: dict[str, tuple[int, ...]] = {"pixels": tuple(pixels.shape[1:])}
    with inference(model), _eager(model), _seen(model, shapes):
        outputs = model(
            pixel_values=pixels.to(model.device, model.dtype), pixel_mask=mask.to(model.device), output_attentions=True
        )
    height, width = shapes["features of the backbone"][1:]
    valid = nn.functional.interpolate(mask[None].float(), size=(height, width))[0, 0].bool()
    inner = (int(valid.any(1).sum()), int(valid.any(0).sum()))
    keep = valid.flatten().to(outputs.logits.device)
    encoder = outputs.encoder_attentions[-1][0].mean(0)[keep][:, keep]
    decoder = torch.stack([one[0].mean(0)[:, keep] for one in outputs.cross_attentions])
    shapes |= {
        "queries": tuple(outputs.last_hidden_state.shape[1:]),
        "class logits": tuple(outputs.logits.shape[1:]),
        "boxes": tuple(outputs.pred_boxes.shape[1:]),
    }
    return Inside(shapes, inner, encoder.float().cpu(), decoder.float().cpu())


@contextmanager
def _eager(model: Detr) -> Iterator[None]:
    """Attention whose weights can be seen, and afterwards the quick one again."""
    # Of the transformer alone: `set_attn_implementation` asks the backbone too, and a ResNet has no attention to set back.
    config: Any = model.config
    before = config._attn_implementation_internal
    config._attn_implementation_internal = "eager"
    try:
        yield
    finally:
        config._attn_implementation_internal = before


@contextmanager
def _seen(model: Detr, shapes: dict[str, tuple[int, ...]]) -> Iterator[None]:
    """Notes the shapes that go through the projection and the encoder."""

    def projected(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes["features of the backbone"] = tuple(inputs[0].shape[1:])
        shapes["projected to the width of the transformer"] = tuple(output.shape[1:])
        shapes["tokens of the encoder"] = (output.shape[2] * output.shape[3], output.shape[1])

    handle = model.model.input_projection.register_forward_hook(projected)
    try:
        yield
    finally:
        handle.remove()
