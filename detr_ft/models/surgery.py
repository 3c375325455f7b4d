"""A pretrained DETR with more or fewer queries, or fewer decoder layers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from PIL import Image
from torch import Tensor, nn

from detr_ft.errors import InputError
from detr_ft.models.families.family import Detr
from detr_ft.models.predict import answers

_JITTER = 0.3  # of a copied query, in standard deviations of all


def set_queries(model: Detr, number: int, use: Tensor, seed: int = 0) -> None:
    """Give the model `number` queries, in place: the most used of its own in their order, or all and copies of idle ones.

    `use [Q]` says how much each is used, as `query_use` does. A copy finds what its original finds until training has told
    them apart: one of a busy query would report its objects twice, so the least used fifth is copied. With a jitter, as
    equal queries meet equal gradients and would stay equal for ever.
    """
    held = model.model.query_position_embeddings.weight.data
    by_use = use.argsort(stable=True).to(held.device)
    if number <= len(held):
        queries = held[by_use[len(held) - number :].sort().values]
    else:
        idle = by_use[: max(1, len(held) // 5)]
        copied = held[idle.repeat(number // len(idle))[: number - len(held)]]
        noise = torch.randn(copied.shape, generator=torch.Generator().manual_seed(seed)).to(held)
        queries = torch.cat([held, copied + _JITTER * held.std() * noise])
    model.model.query_position_embeddings = nn.Embedding.from_pretrained(queries.clone(), freeze=False)
    model.config.num_queries = number


def query_use(model: Detr, processor: object, images: Iterable[Image.Image]) -> Tensor:
    """`[Q]`: how many objects each query speaks of, over some images: the sum of its probabilities of any class."""
    use = torch.zeros(model.config.num_queries)
    for predictions in answers(model, processor, images):
        for objectness in predictions.objectness[0]:
            use += objectness.cpu()
    return use


def keep_decoder_layers(model: Detr, number: int) -> None:
    """Take the decoder's layers after the first `number` away, in place. Every layer was trained to answer by itself.

    (Carion et al., ECCV 2020, section 4.2, figure 4: what the last layers add.) Raises InputError where there are not so many.
    """
    decoder = model.model.decoder
    if not 1 <= number <= len(decoder.layers):
        raise InputError(f"model.decoder_layers: {number} can't be kept, the checkpoint has {len(decoder.layers)}")
    decoder.layers = decoder.layers[:number]
    model.config.decoder_layers = number
