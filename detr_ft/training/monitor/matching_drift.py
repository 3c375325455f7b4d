"""The same few images at every evaluation: which query took which object then, and which does now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from detr_ft.criterion import SetCriterion
from detr_ft.data.pipeline.dataset import TrainDataset, TrainTransform, collate
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.models.predict import inference
from detr_ft.structures import Predictions, Targets

_MOST = 64


class MatchingSample:
    """Up to 64 images of the training split, evenly spread, as they are without augmentation."""

    def __init__(self, split: Dataset, form: ImageFormat, batch_size: int) -> None:
        rows = torch.linspace(0, len(split) - 1, min(_MOST, len(split))).long().tolist()
        self._examples = TrainDataset(split.select(rows), TrainTransform(form), 0)
        self._format, self._batch_size = form, batch_size
        self.partners = torch.zeros(0, dtype=torch.long)  # the query of each target when last looked at, -1 for none

    def look(self, model: Any, criterion: SetCriterion, device: torch.device) -> dict[str, float]:
        """Figures of the model on the sample, by the last layer alone; without an object in it, none.

        `changed_since_last`: targets whose query is another one than when last looked at (Li et al., CVPR 2022, DN-DETR,
        equation 2, over the number of targets). `queries_never_used`: queries that no target of the sample was given to.
        """
        parts = []
        queries = 0
        with inference(model):
            for start in range(0, len(self._examples), self._batch_size):
                stop = min(start + self._batch_size, len(self._examples))
                batch = collate([self._examples.at(0, index) for index in range(start, stop)], self._format.canvas)
                found, queries = self._partners(model, criterion, batch, device)
                parts.append(found)
        now = torch.cat(parts)
        if not len(now):
            return {}
        used = len(now[now >= 0].unique())
        figures = {"queries_never_used": round(1 - used / queries, 4), "objects_looked_at": len(now)}
        if len(self.partners) == len(now):
            figures["changed_since_last"] = round(float((now != self.partners).float().mean()), 4)
        self.partners = now
        return figures

    def _partners(
        self, model: Any, criterion: SetCriterion, batch: Mapping[str, Any], device: torch.device
    ) -> tuple[Tensor, int]:
        pixels = {name: batch[name].to(device) for name in ("pixel_values", "pixel_mask")}
        said = model(**self._format.normalize(pixels))
        predictions = Predictions.from_layer(said.logits, said.pred_boxes)
        targets = Targets.from_labels(batch["labels"], device)
        matches = criterion.matcher(predictions, targets)
        partners = torch.full((len(targets.labels),), -1)
        partners[matches.target.cpu()] = matches.query.cpu()
        return partners, predictions.num_queries
