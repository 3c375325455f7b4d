"""Change the number of queries or decoder layers of a pretrained model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel

from detr_ft.models.families import family_of
from detr_ft.models.predict import final_predictions

_COPY_NOISE = 0.3  # of a copied query, in standard deviations of all queries


def set_queries(model: PreTrainedModel, number: int, use: Tensor, seed: int = 0) -> None:
    """Give the model `number` queries, in place.

    Fewer: its most used ones, in their order. More: all of them, and copies of little used ones. `use [Q]` is that of
    `query_use`. Until training separates them, a copy detects the same objects as its original; the least used fifth is
    copied, because copies of a busy query would report its objects twice. Copies have noise, because equal queries have
    equal gradients and would stay equal. Raises InputError for a family without learned queries.
    """
    family = family_of(model)
    family.check_supports("num_queries")
    path = str(family.query_embedding)
    embedding: Any = model.get_submodule(path)
    queries = embedding.weight.data
    by_use = use.argsort(stable=True).to(queries.device)
    if number <= len(queries):
        queries = queries[by_use[len(queries) - number :].sort().values]
    else:
        idle = by_use[: max(1, len(queries) // 5)]
        copies = queries[idle.repeat(number // len(idle))[: number - len(queries)]]
        noise = torch.randn(copies.shape, generator=torch.Generator().manual_seed(seed)).to(queries)
        queries = torch.cat([queries, copies + _COPY_NOISE * queries.std() * noise])
    model.set_submodule(path, nn.Embedding.from_pretrained(queries.clone(), freeze=False))
    model.config.num_queries = number


def query_use(model: PreTrainedModel, processor: object, images: Iterable[Image.Image]) -> Tensor:
    """Return the use `[Q]` of each query: its probability of an object, summed over images."""
    use = torch.zeros(family_of(model).num_queries(model.config))
    for predictions in final_predictions(model, processor, images):
        for objectness in predictions.objectness[0]:  # [Q] of each image
            use += objectness.cpu()
    return use


def truncate_decoder(model: PreTrainedModel, number: int) -> None:
    """Remove the decoder layers after the first `number`, in place.

    Auxiliary losses train each layer to predict by itself (Carion et al., ECCV 2020, section 4.2, figure 4: the gain of
    the last layers). Raises InputError if there are fewer.
    """
    family_of(model).truncate_decoder(model, number)
